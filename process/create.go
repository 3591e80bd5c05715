package process

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/rootfs"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

// This file makes a container and lets it run. Each step that is done puts what
// takes it back on a stack.

// Create creates the container: root filesystem, standard IO, and an init
// process that waits for Start. When it fails nothing of it is left.
func (c *Container) Create(ctx context.Context) error {
	op := OpCreate
	if c.checkpoint != "" {
		op = OpPrepare
	}
	return c.init.do(ctx, op, nil, c.create)
}

func (c *Container) create(ctx context.Context) (_ *Event, err error) {
	var undo undoing
	defer undo.unless(&err)
	spec, err := c.bundle.ReadSpec()
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w: %w", c.ID, err, errdefs.ErrInvalidArgument)
	}
	if err := c.annotate(spec.Annotations); err != nil {
		return nil, fmt.Errorf("create container %s: %w", c.ID, err)
	}
	c.mu.Lock()
	c.ownPIDNamespace = spec.OwnPIDNamespace()
	c.cgroupsPath = spec.Linux.CgroupsPath
	c.options.SystemdCgroup = c.options.SystemdCgroup || spec.SystemdCgroup()
	c.runtime = driver.New(c.bundle, c.namespace, c.options)
	c.runtime.Limits = c.limits.Runtime
	c.mu.Unlock()
	if err := c.bundle.WriteOptions(c.options); err != nil {
		return nil, fmt.Errorf("create container %s: keep its options: %w", c.ID, err)
	}
	if err := c.bundle.ReserveExit(); err != nil {
		return nil, fmt.Errorf("create container %s: take room for the record of its exit: %w", c.ID, err)
	}
	undo.later(func() { c.bundle.ReleaseExit() })
	if err := rootfs.Mount(c.bundle, c.rootfs); err != nil {
		return nil, fmt.Errorf("create container %s: %w", c.ID, err)
	}
	undo.later(func() {
		if err := c.unmount(); err != nil {
			c.log("container %s: undo its creation: %v", c.ID, err)
		}
	})
	event := &Event{Kind: ContainerCreated, Bundle: c.bundle, Rootfs: c.rootfs, Stdio: c.init.State().Stdio, Checkpoint: c.checkpoint}
	if c.checkpoint != "" {
		return event, nil
	}
	if err := c.launchInit(ctx, &undo, func(ctx context.Context, s driver.Streams) (int, error) {
		return c.runtime.Create(ctx, c.ID, s)
	}); err != nil {
		return nil, err
	}
	event.PID = c.init.State().PID
	return event, nil
}

// launchInit makes the init process by a call to the OCI runtime and takes
// hold of all that belongs to it.
func (c *Container) launchInit(ctx context.Context, undo *undoing, launch func(context.Context, driver.Streams) (int, error)) error {
	p := c.init
	options := p.stdioOptions(false)
	spec := p.State().Stdio
	if spec.Stdout != "" || spec.Stderr != "" {
		options.Direct, options.Apart = c.handOver()
	}
	streams, err := stdio.Open(ctx, spec, options)
	if err != nil {
		return fmt.Errorf("open standard IO of container %s: %w", c.ID, err)
	}
	undo.later(func() { streams.Close() })
	if err := p.useStreams(streams); err != nil {
		return err
	}
	// Until the pid is known and owned, no unknown child may be reaped.
	launched := child.Launching()
	defer launched()
	go cgroup.Prepare() // while the runtime works
	pid, err := launch(ctx, childStreams(streams))
	if !leftNothing(err) {
		undo.later(func() {
			if err := c.runtime.Delete(context.Background(), c.ID, true); err != nil {
				c.log("container %s: undo its creation: %v", c.ID, err)
				return
			}
			os.Remove(c.bundle.InitPidFile()) // which would name a stranger one day
			// A runtime that was killed may not have noted that it made one.
			if err := cgroup.RemoveEmpty(c.cgroupsPath, c.bounds().Killed); err != nil {
				c.log("container %s: undo its creation: %v", c.ID, err)
			}
		})
	}
	if err != nil {
		return err
	}
	if err := p.adopt(pid); err != nil {
		return err
	}
	group, err := c.loadCgroup(pid)
	if err != nil {
		c.log("container %s: no statistics: %v", c.ID, err)
	} else if group != nil {
		c.watchCgroup(group)
		undo.later(func() { c.dropCgroup() })
	}
	attach, cancel := context.WithTimeout(ctx, c.bounds().Console)
	defer cancel()
	if err := streams.Attach(attach); err != nil {
		return fmt.Errorf("attach standard IO of container %s: %w", c.ID, err)
	}
	return nil
}

// leftNothing tells whether a failed launch cannot have left anything with
// the OCI runtime, or has met a container that is not ours to remove.
func leftNothing(err error) bool {
	return err != nil && (driver.NotRun(err) || strings.Contains(err.Error(), "already exists"))
}

func (p *Process) stdioOptions(drainFirst bool) stdio.Options {
	c := p.container
	return stdio.Options{
		DrainFirst:  drainFirst,
		Listen:      c.options.LogFormat == oci.NoLog,
		UID:         int(c.options.IOUID),
		GID:         int(c.options.IOGID),
		Dir:         string(c.bundle),
		ContainerID: c.ID,
		Namespace:   c.namespace,
		Logs:        p.logs(),
		Log:         p.streamLog,
	}
}

// logs is what becomes of output that nobody takes: an exec's client has asked
// for it and reads it.
func (p *Process) logs() stdio.Logs {
	if p.isExec() {
		return stdio.Logs{}
	}
	p.container.mu.Lock()
	defer p.container.mu.Unlock()
	return p.container.logs.with(p.container.annotations)
}

// streamLog takes what there is to say of the process's streams.
func (p *Process) streamLog(format string, args ...any) {
	p.container.log("%s: "+format, append([]any{p.name()}, args...)...)
}

func childStreams(s *stdio.Streams) driver.Streams {
	if socket := s.ConsoleSocket(); socket != "" {
		return driver.Streams{ConsoleSocket: socket}
	}
	stdin, stdout, stderr := s.Child()
	return driver.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr, Said: s.Said}
}

// Start lets the init process run the container's program, or restores the
// container from its checkpoint.
func (c *Container) Start(ctx context.Context) error {
	return c.init.do(ctx, OpStart, nil, c.start)
}

func (c *Container) start(ctx context.Context) (*Event, error) {
	if c.checkpoint != "" {
		return c.restore(ctx)
	}
	if err := c.init.openStdin(); err != nil {
		return nil, err
	}
	if err := c.runtime.Start(ctx, c.ID); err != nil {
		return nil, err
	}
	return &Event{Kind: ContainerStarted, PID: c.init.State().PID}, nil
}

// undoing is a stack of steps that take back what was done.
type undoing []func()

func (u *undoing) later(step func()) { *u = append(*u, step) }

// unless is deferred by who does the steps: they are taken back if he fails, by
// an error or by a panic, which goes on.
func (u *undoing) unless(err *error) {
	panicked := recover()
	if panicked == nil && *err == nil {
		return
	}
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
	if panicked != nil {
		panic(panicked)
	}
}
