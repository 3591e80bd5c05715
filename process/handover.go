package process

// This file stops what moves by itself in a container, for another program of
// the same process to go on with it, or this one. What moves are the watches of
// its processes, the watch for OOM kills and the streams. None of them knows
// anything that is not in the state, so each is simply begun anew.

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Idle waits until no operation is under way. Operations outlive the requests
// for them.
func (c *Container) Idle(ctx context.Context) error {
	for {
		c.mu.Lock()
		var busy *Process
		for _, p := range c.processes() {
			if p.call != nil {
				busy = p
			}
		}
		if busy == nil {
			c.mu.Unlock()
			return nil
		}
		current := busy.call
		c.mu.Unlock()
		select {
		case <-current.done:
		case <-ctx.Done():
			return fmt.Errorf("%q of %s does not end: %w", current.op, busy.name(), context.Cause(ctx))
		}
	}
}

// processes are init and all execs; the caller holds c.mu.
func (c *Container) processes() []*Process {
	all := make([]*Process, 0, 1+len(c.execs))
	all = append(all, c.init)
	for _, p := range c.execs {
		all = append(all, p)
	}
	return all
}

// Hold stops the container's own doings and waits until they have come to where
// they can be stopped; no operation may be under way. GoOn undoes it, also when
// it has failed.
func (c *Container) Hold(ctx context.Context) error {
	c.mu.Lock()
	close(c.held)
	for _, p := range c.processes() {
		p.stopWatch()
	}
	group, processes := c.cgroup, c.processes()
	c.mu.Unlock()

	still := make(chan struct{})
	go func() { // ends when all have come to a point, which is bounded by others
		c.watchers.Wait()
		close(still)
	}()
	select {
	case <-still:
	case <-ctx.Done():
		return fmt.Errorf("container %s: the end of one of its processes takes long: %w", c.ID, context.Cause(ctx))
	}
	if group != nil {
		group.HoldWatch()
	}
	for _, p := range processes {
		if p.streams == nil {
			continue
		}
		if err := p.streams.Hold(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
	}
	return nil
}

// GoOn undoes Hold, and begins what a restored container does by itself.
func (c *Container) GoOn() {
	c.reserveExit()
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.held:
		c.held = make(chan struct{})
	default:
		return
	}
	for _, p := range c.processes() {
		if p.streams != nil {
			p.streams.GoOn()
		}
		if p.child == nil || p.told() {
			continue
		}
		if !p.watched {
			p.beginWatch()
		}
	}
	if c.cgroup == nil {
		return
	}
	if err := c.cgroup.GoOnWatch(); err != nil {
		c.log("container %s: %v", c.ID, err)
	}
	if c.rewatch {
		c.rewatch = false
		if err := c.cgroup.WatchOOM(func() { c.checkOOM() }); err != nil {
			c.log("container %s: watch for OOM: %v", c.ID, err)
		}
	}
}

// reserveExit takes the room for the record of the exit if the program that has
// created the container did not.
func (c *Container) reserveExit() {
	c.mu.Lock()
	ends := c.init.child != nil && c.init.reaped.At.IsZero() && !c.init.told()
	c.mu.Unlock()
	if !ends {
		return
	}
	if err := c.bundle.ReserveExit(); err != nil {
		c.log("container %s: take room for the record of its exit: %v", c.ID, err)
	}
}

// told tells whether those who wait for the end of the process have it.
func (p *Process) told() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Restore makes the container that another program of this process has handed
// over. Of config, Publish, Gone, Log and Done are used. The container is held
// up: it begins nothing before GoOn.
func Restore(config Config, s ContainerState, files *handover.Inherited) (*Container, error) {
	config.ID, config.Namespace, config.Bundle, config.Options = s.ID, s.Namespace, s.Bundle, s.Options
	config.Rootfs, config.Checkpoint, config.Limits = s.Rootfs, s.Checkpoint, s.Limits
	config.Output, config.Logs, config.Allowed = s.Output, s.Logs, s.Allowed
	config.Stdio = s.Init.Stdio
	c := New(config)
	close(c.held)
	c.annotations, c.ownPIDNamespace, c.cgroupsPath = s.Annotations, s.OwnPIDNamespace, s.CgroupsPath
	c.initGone, c.oom = s.InitGone, s.OOM
	c.runtime = driver.New(c.bundle, c.namespace, c.options)
	c.runtime.Limits = c.limits.Runtime
	if s.Cgroup != nil {
		group, err := cgroup.Inherit(*s.Cgroup, files)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.ID, err)
		}
		c.cgroup, c.sharedCgroup, c.rewatch = group, group.Shared(), s.Cgroup.Watched
	}
	if err := c.init.restore(s.Init, files); err != nil {
		return nil, err
	}
	for _, r := range s.Execs {
		p := newProcess(c, r.ExecID, r.Stdio)
		if err := p.restore(r, files); err != nil {
			return nil, err
		}
		c.execs[r.ExecID] = p
		if r.Owned && !r.Told {
			c.execsRunning++
		}
	}
	return c, nil
}

func (p *Process) restore(r ProcessRecord, files *handover.Inherited) error {
	p.state = r.ProcessState
	p.state.Streams, p.state.Operation = nil, ""
	p.stdinClosed, p.width, p.height = r.StdinClosed, r.Width, r.Height
	p.killed, p.launched, p.reaped = r.Killed, r.Launched, r.Reaped
	if r.Spec != nil {
		p.spec = new(specs.Process)
		if err := json.Unmarshal(r.Spec, p.spec); err != nil {
			return fmt.Errorf("%s: its spec: %w", p.name(), err)
		}
	}
	switch {
	case !r.Owned:
	case p.container.elsewhere():
		gone := newRemote(p, r.PID)
		gone.ended.Store(r.Told)
		p.child = gone
	case r.Pidfd == "":
		p.child = child.Restore(r.PID, nil)
	default:
		pidfd, err := files.Take(r.Pidfd)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
		p.child = child.Restore(r.PID, pidfd)
	}
	if r.IO != nil {
		var err error
		if p.streams, err = stdio.Restore(p.streamLog, *r.IO, files); err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
	}
	if r.Told {
		p.release()
	}
	p.publish()
	return nil
}
