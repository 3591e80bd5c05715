package process

import (
	"context"
	"fmt"
	"strings"

	"github.com/cleatrun/cleat/oci/rootfs"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

// This file removes a container.

func (c *Container) unmount() error {
	if len(c.rootfs) == 0 {
		return nil
	}
	return rootfs.Unmount(c.bundle.Rootfs())
}

// errGivenUp is why a creation ends that somebody deletes meanwhile: it is the
// client's way to take back a create whose answer it does not want any more.
var errGivenUp = fmt.Errorf("deleted while it was being created: %w", errdefs.ErrUnavailable)

// Delete removes a container that has ended or was never started. Asked again
// after a failure it goes on where it stopped. A creation that is under way is
// given up; then nothing is left, and the container not found.
func (c *Container) Delete(ctx context.Context) error {
	c.mu.Lock()
	if current := c.init.call; current != nil && current.op.creates() {
		current.abort(errGivenUp)
	}
	c.mu.Unlock()
	return c.init.do(ctx, OpDelete, nil, c.delete)
}

func (c *Container) delete(ctx context.Context) (*Event, error) {
	p := c.init
	c.mu.Lock()
	owned, streams := p.child, p.streams
	// The init process of a PID namespace ends as the last of it (pid_namespaces(7)).
	empty := c.ownPIDNamespace && p.state.State == Stopped && c.execsRunning == 0
	c.mu.Unlock()
	if owned != nil && !empty {
		owned.Signal(killSignal) // created, not started; one that has ended does not mind
		c.letDie()
		if err := p.awaitEnd(ctx); err != nil {
			return nil, err
		}
	}
	if streams != nil {
		p.drain(ctx, streams)
	}
	err := c.runtime.Delete(ctx, c.ID, false)
	if err != nil && (c.thawed() || saidPaused(err)) {
		err = c.runtime.Delete(ctx, c.ID, false)
	}
	if err != nil {
		return nil, err
	}
	if err := c.unmount(); err != nil {
		return nil, fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	if err := c.removeCgroup(); err != nil {
		return nil, fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	c.dropCgroup()
	c.dropExecs()
	p.release()
	s := p.State()
	p.record(s.Exit, c.oomKilled(), true)
	return &Event{Kind: ProcessDeleted, PID: s.PID, Exit: s.Exit}, nil
}

// saidPaused tells that the runtime has refused to delete what it took for paused.
// By now whoever had frozen it may have let it go.
func saidPaused(err error) bool { return strings.Contains(err.Error(), "paused") }

// awaitEnd waits for the end of a process that was told to die.
func (p *Process) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.container.bounds().Killed)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		return fmt.Errorf("%s does not end after SIGKILL: %w", p.name(), errdefs.ErrUnavailable)
	}
	return nil
}

// drain gives output that is still on its way a bounded time, then ends the
// streams.
func (p *Process) drain(ctx context.Context, streams *stdio.Streams) {
	limit := p.container.bounds().Drain
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := streams.Drain(ctx); err != nil {
		p.container.log("%s: its output is still held open after %s, given up", p.name(), limit)
	}
	if err := streams.Close(); err != nil {
		p.container.log("%s: close standard IO: %v", p.name(), err)
	}
}

// dropExecs releases what the client has not deleted of execs, and those who
// still wait for one.
func (c *Container) dropExecs() {
	c.mu.Lock()
	execs := c.execs
	c.execs = map[string]*Process{}
	c.mu.Unlock()
	for _, p := range execs {
		c.mu.Lock()
		streams := p.streams
		c.mu.Unlock()
		if streams != nil {
			streams.Close()
		}
		p.release()
	}
}
