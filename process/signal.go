package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/containerd/errdefs"
)

// Kill sends a signal to the process, through its pidfd; with all, to every
// process of the container.
func (p *Process) Kill(signal syscall.Signal, all bool) error {
	c := p.container
	c.mu.Lock()
	_, err := p.next(OpKill)
	owned, group := p.child, c.cgroup
	frozen := p.state.State == Paused || p.call != nil && p.call.op == OpPause
	if err == nil && signal == killSignal {
		p.killed = true
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if owned == nil {
		return fmt.Errorf("%s has no process: %w", p.name(), errdefs.ErrFailedPrecondition)
	}
	everyone := all && !p.isExec() && group != nil
	if c.options.Signals == oci.RuntimeSignals && !p.isExec() || c.elsewhere() {
		return p.killByRuntime(owned, signal, all)
	}
	if everyone && !(signal == killSignal && c.ownPIDNamespace) {
		err = group.Kill(signal)
	} else {
		err = owned.Signal(signal)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: process already finished: %w", p.name(), errdefs.ErrNotFound)
	}
	if errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("%s: there is no signal %d: %w", p.name(), signal, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return fmt.Errorf("signal %d to %s: %w", signal, p.name(), err)
	}
	if signal != killSignal || group == nil {
		return nil
	}
	if !p.isExec() {
		c.letDie()
	}
	if frozen {
		return p.thaw(group)
	}
	return nil
}

// killByRuntime has the OCI runtime send the signal. The init process goes by the
// container's name.
func (p *Process) killByRuntime(owned body, signal syscall.Signal, all bool) error {
	pid := 0
	if p.isExec() {
		pid, all = p.State().PID, false
	}
	err := p.container.runtime.Kill(context.Background(), p.container.ID, pid, signal, all)
	if err != nil && (owned.Ended() || driver.Finished(err)) {
		return fmt.Errorf("%s: process already finished: %w", p.name(), errdefs.ErrNotFound)
	}
	return err
}

// thaw lets a process die that was killed while it was frozen, which on cgroup v1
// it does only then.
func (p *Process) thaw(group *cgroup.Group) error {
	if err := group.Thaw(); err != nil {
		return fmt.Errorf("thaw %s to kill it: %w", p.name(), err)
	}
	return nil
}
