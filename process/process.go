package process

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Process is one process of a container that containerd knows: the init
// process, or an exec.
type Process struct {
	container *Container
	// spec of an exec that was not started yet.
	spec *specs.Process

	// Guarded by container.mu: what follows, up to published.
	state   ProcessState
	call    *call
	streams *stdio.Streams
	child   body
	// What was asked before there were streams.
	stdinClosed   bool
	width, height uint16
	// killed tells that it was sent SIGKILL.
	killed bool
	// watched tells that there is a watch. reaped is how the process ended, from
	// when it was reaped; its end may not be told yet.
	watched bool
	reaped  Exit
	// launched tells that the event of its creation or start is told, so its
	// exit has to be told too.
	launched bool

	// published is what readers get without any lock.
	published atomic.Pointer[ProcessState]
	// exited is closed when the exit is recorded and its event is queued, or
	// when there will be none.
	exited  chan struct{}
	release func()
}

func newProcess(c *Container, execID string, streams stdio.Spec) *Process {
	p := &Process{container: c, exited: make(chan struct{})}
	p.release = sync.OnceFunc(func() { close(p.exited) })
	p.state.ExecID = execID
	p.state.Stdio = streams
	p.publish()
	return p
}

// State as last published; it never waits.
func (p *Process) State() ProcessState { return *p.published.Load() }

// body is the process itself, of which the shim learns the end and to which it
// sends signals: one on this host (child.Child), or one that only the OCI
// runtime can reach.
type body interface {
	// Await calls then, on a goroutine of its own, with how it has ended. It is
	// called as soon as there is a body, and again after Interrupt.
	Await(then func(child.Exit, error))
	// Interrupt takes Await back. If it is false then is called all the same, with
	// errInterrupted where the process has not ended.
	Interrupt() bool
	// Signal says os.ErrProcessDone when it has ended.
	Signal(syscall.Signal) error
	Ended() bool
	Close() error
}

// Container that the process belongs to.
func (p *Process) Container() *Container { return p.container }

// Wait returns how the process ended, once that is recorded and its event is
// queued, or with ctx. One that was deleted before it ran is not found.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.exited:
		exit := p.State().Exit
		if exit.At.IsZero() {
			return Exit{}, fmt.Errorf("%s was deleted before it ran: %w", p.name(), errdefs.ErrNotFound)
		}
		return exit, nil
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// publish makes the state visible to readers. The caller holds container.mu
// or is alone.
func (p *Process) publish() {
	s := p.state
	p.published.Store(&s)
}

// next looks the operation up in the lifecycle table for the state as it is;
// the caller holds container.mu.
func (p *Process) next(op Operation) (State, error) {
	s, err := Next(p.isExec(), p.state.State, op)
	if err != nil {
		return s, fmt.Errorf("%s: %w", p.name(), err)
	}
	return s, nil
}

func (p *Process) isExec() bool { return p.state.ExecID != "" }

func (p *Process) name() string {
	if p.isExec() {
		return "exec " + p.state.ExecID + " of container " + p.container.ID
	}
	return "container " + p.container.ID
}

// Resize sets the size of the process's terminal, now or as soon as there is
// one. Without a terminal nothing happens.
func (p *Process) Resize(width, height uint16) error {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := p.next(OpResize); err != nil {
		return err
	}
	if p.streams == nil {
		p.width, p.height = width, height
		return nil
	}
	return p.streams.Resize(width, height)
}

// CloseStdin lets the process read EOF once the client has closed its end
// too, now or as soon as it is started.
func (p *Process) CloseStdin() error {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	p.stdinClosed = true
	if p.streams == nil {
		return nil
	}
	return p.streams.CloseStdin()
}

// useStreams makes opened streams the process's own and applies what was
// asked of them before.
func (p *Process) useStreams(s *stdio.Streams) error {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	p.streams = s
	if p.width != 0 || p.height != 0 {
		if err := s.Resize(p.width, p.height); err != nil {
			return err
		}
	}
	if p.stdinClosed {
		return s.CloseStdin()
	}
	return nil
}

// adopt makes the process that the OCI runtime has launched the shim's own:
// from here on its exit cannot be lost.
func (p *Process) adopt(pid int) error {
	if p.container.elsewhere() {
		p.own(pid, newRemote(p, pid))
		return nil
	}
	owned, err := child.Adopt(pid)
	if err != nil {
		return err
	}
	p.own(pid, owned)
	return nil
}

// adoptLeft is adopt for what a failed launch may have made, so that its end
// can be brought about.
func (p *Process) adoptLeft(pid int) {
	if pid == 0 {
		return
	}
	if p.container.elsewhere() {
		p.own(pid, newRemote(p, pid))
		return
	}
	owned, err := child.AdoptLeft(pid)
	if err != nil {
		p.container.log("%s: %v", p.name(), err)
		return
	}
	p.own(pid, owned)
}

func (p *Process) own(pid int, owned body) {
	c := p.container
	c.mu.Lock()
	p.child = owned
	p.state.PID = pid
	p.publish()
	p.beginWatch()
	c.mu.Unlock()
}
