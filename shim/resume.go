package shim

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	"github.com/cleatrun/cleat/shim/version"
	"github.com/containerd/errdefs"
)

// Resume is the daemon of a program that has replaced another one. Whatever goes
// wrong before everything is restored leads back to that one.
func Resume(handed *arrival.Handed) error {
	begun := time.Now()
	s, received, err := build(handed)
	if err != nil {
		return handed.Back(err)
	}
	received.Times.Arrived, received.Times.Begun, received.Times.Built = handed.At, begun, time.Now()
	// From here on there is no way back, and everything moves again.
	handed.Pass()
	received.Files.Own()
	child.ReapOrphans()
	for _, c := range s.tasks.containers.all() {
		c.GoOn()
	}
	for _, lingering := range stdio.Lingering() {
		lingering.GoOn()
	}
	s.reportCrashes()
	s.queue.GoOn()
	s.outcome(handed, received)
	s.tasks.containers.goOn()
	s.server.Release()
	return s.serve()
}

// Try tells on out whether this program could go on with what it is handed as a
// copy: the other side of upgrade.Program.Try.
func Try(out io.Writer) error {
	return upgrade.Rehearse(out, func(r *upgrade.Received) error {
		_, err := restore(r)
		return err
	})
}

// build makes the shim of what was handed over, and starts nothing.
func build(handed *arrival.Handed) (s *shim, received *upgrade.Received, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	if received, err = upgrade.Receive(handed); err != nil {
		return nil, nil, err
	}
	if err = child.BecomeSubreaper(); err != nil {
		return nil, nil, err
	}
	if s, err = restore(received); err != nil {
		return nil, nil, err
	}
	s.signals = handed.Signals
	return s, received, trouble()
}

// trouble is what befalls a program that has restored everything, in tests.
var trouble = func() error { return nil }

func restore(r *upgrade.Received) (*shim, error) {
	state := r.State
	d := bootstrap.Daemon{
		Namespace: state.Daemon.Namespace, ID: state.Daemon.ID,
		Address: state.Daemon.Address, TTRPCAddress: state.Daemon.TTRPCAddress,
		Bundle: state.Daemon.Bundle, InvokedAs: state.Daemon.InvokedAs,
		RuntimeName: options.RuntimeName(state.Daemon.InvokedAs),
		Said:        state.Daemon.Said,
		Debug:       state.Daemon.Debug, SocketPath: state.Daemon.SocketPath,
	}
	s := &shim{daemon: d, log: resumeLog(d.RuntimeName, d.Debug), started: state.Started, running: time.Now(), upgrades: state.Upgrades}
	socket, err := r.Files.TakeCopied(state.Listener)
	if err != nil {
		return nil, err
	}
	if s.listener, err = listenOn(socket); err != nil {
		return nil, err
	}
	queue, err := events.Restore(s.eventOptions(), state.Events, r.Files)
	if err != nil {
		return nil, err
	}
	s.assemble(nil, queue)
	if s.tasks.containers, err = restoreContainers(state.Containers, func(c process.ContainerState) (*process.Container, error) {
		return s.tasks.restore(c, r.Files)
	}); err != nil {
		return nil, err
	}
	for _, lingering := range state.Lingering {
		if err := stdio.RestoreLingering(s.log.Warn, lingering, r.Files); err != nil {
			return nil, err
		}
	}
	return s, s.server.Restore(state.Server, r.Files)
}

// outcome is what the call for the upgrade is answered.
func (s *shim) outcome(handed *arrival.Handed, r *upgrade.Received) {
	if handed.Refused != "" {
		s.upgrade.failure = fmt.Errorf("the new program gave the shim back: %s: %w", handed.Refused, errdefs.ErrFailedPrecondition)
		s.log.Warn("not upgraded: %v", s.upgrade.failure)
		return
	}
	s.upgrades++
	times := r.Times
	times.Served = time.Now()
	release, _ := version.Get()
	s.upgrade.outcome = control.Upgraded{From: r.State.Release, To: release, Pause: times.Pause(), Times: times}
	s.log.Info("upgraded from %q to %q, process %d; calls waited for %s", r.State.Release, release, os.Getpid(), times.Pause().Round(time.Microsecond))
}
