package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/child"
)

// This file is about containers whose processes are not on this host: all that
// the kernel is asked as a rule, the OCI runtime is asked for them.

// elsewhere tells whether this is such a container.
func (c *Container) elsewhere() bool { return c.options.Processes == oci.ElsewhereProcesses }

// remoteStats are what the runtime says, in the form of this host's cgroups.
func (c *Container) remoteStats() (*cgroup.Sample, error) {
	stats, err := c.runtime.Stats(context.Background(), c.ID)
	if err != nil {
		return nil, fmt.Errorf("statistics of container %s: %w", c.ID, err)
	}
	return cgroup.OfRuntime(stats), nil
}

// remote is a process that only the OCI runtime can reach.
type remote struct {
	process *Process
	pid     int // as the runtime counts; 0 stands for the init process
	ended   atomic.Bool

	mu     sync.Mutex // guards what follows
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func newRemote(p *Process, pid int) *remote {
	r := &remote{process: p}
	if p.isExec() {
		r.pid = pid
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	return r
}

// Await is that of body.
func (r *remote) Await(then func(child.Exit, error)) {
	r.mu.Lock()
	if r.ctx.Err() != nil {
		r.ctx, r.cancel = context.WithCancelCause(context.Background())
	}
	ctx := r.ctx
	r.mu.Unlock()
	go func() {
		exit, err := r.wait(ctx)
		r.ended.Store(!errors.Is(err, errInterrupted))
		then(exit, err)
	}()
}

// Interrupt is that of body. It is always false: a runtime that has said how its
// process has ended may not be asked again.
func (r *remote) Interrupt() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel(errInterrupted)
	return false
}

func (r *remote) context() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ctx
}

// wait returns how the process ends. A runtime that cannot tell is asked again and
// again whether its container has ended; then the status is lost.
func (r *remote) wait(ctx context.Context) (child.Exit, error) {
	c := r.process.container
	status, err := c.runtime.Wait(ctx, c.ID, r.pid)
	if err == nil {
		exit := child.Exit{Status: status, At: time.Now()}
		if status > 128 && status <= 128+64 { // as shells tell signals
			exit.Signal = syscall.Signal(status - 128)
		}
		return exit, nil
	}
	const pause = time.Second
	for ctx.Err() == nil {
		if stopped, _ := c.runtime.Stopped(ctx, c.ID); stopped {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	if errors.Is(context.Cause(ctx), errInterrupted) {
		err = errInterrupted
	}
	return child.Exit{}, err
}

// Signal is that of body.
func (r *remote) Signal(signal syscall.Signal) error {
	if r.ended.Load() {
		return os.ErrProcessDone
	}
	c := r.process.container
	return c.runtime.Kill(r.context(), c.ID, r.pid, signal, false)
}

// Ended is that of body.
func (r *remote) Ended() bool { return r.ended.Load() }

// Close is that of body.
func (r *remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel(nil)
	return nil
}
