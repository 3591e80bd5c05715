package process

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// AddExec adds a process that Start will run in the container. spec is the
// runtime spec's process as JSON.
func (c *Container) AddExec(id string, spec []byte, streams stdio.Spec) error {
	var process specs.Process
	if err := json.Unmarshal(spec, &process); err != nil {
		return fmt.Errorf("spec of exec %s of container %s: %w: %w", id, c.ID, err, errdefs.ErrInvalidArgument)
	}
	process.Terminal = streams.Terminal
	p := newProcess(c, id, streams)
	p.spec = &process

	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[id]; ok {
		return fmt.Errorf("exec %s of container %s: %w", id, c.ID, errdefs.ErrAlreadyExists)
	}
	if _, err := c.init.next(OpAddExec); err != nil {
		return err
	}
	p.state.State = Created
	p.publish()
	c.execs[id] = p
	c.tell(Event{Kind: ExecAdded, Exec: id})
	return nil
}

// StartExec runs an added exec.
func (p *Process) StartExec(ctx context.Context) error {
	return p.do(ctx, OpStart, p.admitStart, p.startExec)
}

// admitStart counts the exec as running, so that the exit of init waits for
// its end, unless init is gone: then the exec will never run, and those who wait
// for it have waited long enough. The caller holds container.mu.
func (p *Process) admitStart() error {
	c := p.container
	if c.initGone {
		err := fmt.Errorf("%s: its init process has ended: %w", p.name(), errdefs.ErrFailedPrecondition)
		p.notRun(err)
		p.release()
		return err
	}
	if _, err := c.init.next(OpStartExec); err != nil {
		return err
	}
	c.execsRunning++
	return nil
}

func (p *Process) startExec(ctx context.Context) (_ *Event, err error) {
	c := p.container
	var undo undoing
	defer undo.unless(&err)
	streams, err := stdio.Open(ctx, p.state.Stdio, p.stdioOptions(true))
	if err != nil {
		return nil, fmt.Errorf("open standard IO of %s: %w", p.name(), err)
	}
	undo.later(func() { streams.Close() })
	if err := p.useStreams(streams); err != nil {
		return nil, err
	}
	launched := child.Launching()
	defer launched()
	pid, err := c.runtime.Exec(ctx, c.ID, p.state.ExecID, p.sized(), childStreams(streams))
	if err != nil {
		p.adoptLeft(pid)
		return nil, err
	}
	if err := p.adopt(pid); err != nil {
		return nil, err
	}
	attach, cancel := context.WithTimeout(ctx, c.bounds().Console)
	defer cancel()
	if err := streams.Attach(attach); err != nil {
		return nil, fmt.Errorf("attach standard IO of %s: %w", p.name(), err)
	}
	if err := p.openStdin(); err != nil {
		return nil, err
	}
	p.spec = nil
	return &Event{Kind: ExecStarted, Exec: p.state.ExecID, PID: pid}, nil
}

// sized is the spec with the size that the terminal was given before it was
// there: the program may ask for it before Attach can set it.
func (p *Process) sized() specs.Process {
	p.container.mu.Lock()
	defer p.container.mu.Unlock()
	spec := *p.spec
	if spec.Terminal && (p.width != 0 || p.height != 0) {
		spec.ConsoleSize = &specs.Box{Width: uint(p.width), Height: uint(p.height)}
	}
	return spec
}

// neverRan ends the life of an exec whose start has failed: those who wait
// for it get a real status. No exit is told of it, for no start was. A
// process that was made in spite of the failure is killed; its watch ends it.
func (p *Process) neverRan(cause error) error {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	// It may have ended a moment ago, and not be known to.
	ended := c.initGone || c.init.child.Ended()
	if ended && !errdefs.IsFailedPrecondition(cause) {
		cause = fmt.Errorf("%w (the container's init process has ended: %w)", cause, errdefs.ErrFailedPrecondition)
	}
	p.notRun(cause)
	if p.child != nil {
		p.child.Signal(killSignal)
		return cause
	}
	c.execGone()
	p.release()
	return cause
}

// notRun makes the state that of an exec that has not come to run; the caller
// holds container.mu.
func (p *Process) notRun(cause error) {
	p.state.State = Stopped
	p.state.Exit = Exit{Status: launchStatus(cause), At: time.Now()}
	p.publish()
}

// launchStatus is the exit status by which shells, Docker and Kubernetes tell
// why a program could not be run.
func launchStatus(err error) int {
	text := strings.ToLower(err.Error())
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		return 127
	case strings.Contains(text, "permission denied"), strings.Contains(text, "exec format error"), strings.Contains(text, "is a directory"):
		return 126
	}
	return 255
}

// DeleteExec removes an exec that has ended or was never started.
func (p *Process) DeleteExec(ctx context.Context) error {
	return p.do(ctx, OpDelete, nil, func(ctx context.Context) (*Event, error) {
		c := p.container
		c.mu.Lock()
		streams := p.streams
		c.mu.Unlock()
		if streams != nil {
			p.drain(ctx, streams)
		}
		c.mu.Lock()
		delete(c.execs, p.state.ExecID)
		c.mu.Unlock()
		p.release()
		s := p.State()
		return &Event{Kind: ProcessDeleted, Exec: s.ExecID, PID: s.PID, Exit: s.Exit}, nil
	})
}
