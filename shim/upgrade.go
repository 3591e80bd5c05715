package shim

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/cleatrun/cleat/shim/version"
	"github.com/containerd/errdefs"
)

// This file brings the shim to a stop and has its program replaced; resume.go is
// how the new program goes on. Everything before the last step is undone when one
// fails, and nobody has noticed but who waits for an answer.

const (
	// defaultPatience is how long calls of the OCI runtime may take to end.
	defaultPatience = 10 * time.Second
	// pauseLimit bounds each step of the pause. containerd gives up a shim that
	// does not answer for 2 s.
	pauseLimit = 500 * time.Millisecond
)

// upgrading is what a shim knows of upgrades.
type upgrading struct {
	underWay sync.Mutex
	// outcome is what the call for the last upgrade is answered, in the program
	// that has it.
	outcome control.Upgraded
	failure error
}

// upgradeCall answers control.MethodUpgrade.
func (s *shim) upgradeCall(ctx context.Context, payload []byte) ([]byte, error) {
	if ttrpcserver.Replayed(ctx) {
		if s.upgrade.failure != nil {
			return nil, s.upgrade.failure
		}
		return control.Encode(s.upgrade.outcome)
	}
	var request control.Upgrade
	if err := control.Decode(payload, &request); err != nil {
		return nil, err
	}
	if !s.upgrade.underWay.TryLock() {
		return nil, fmt.Errorf("another upgrade is under way: %w", errdefs.ErrUnavailable)
	}
	defer s.upgrade.underWay.Unlock()
	// Who asked may go away: it is done all the same.
	err := s.upgradeTo(context.WithoutCancel(ctx), request)
	s.log.Warn("not upgraded: %v", err)
	return nil, err
}

// upgradeTo returns only with an error.
func (s *shim) upgradeTo(ctx context.Context, request control.Upgrade) (err error) {
	if request.Patience <= 0 {
		request.Patience = defaultPatience
	}
	times := upgrade.Times{Asked: time.Now()}
	program, err := upgrade.Open(request.Path)
	if err != nil {
		return err
	}
	defer program.Close()
	if _, err := s.try(ctx, program); err != nil {
		return err
	}
	times.Tried = time.Now()

	var undo []func()
	defer func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}()
	if err := s.tasks.containers.hold(); err != nil {
		return err
	}
	undo = append(undo, s.tasks.containers.goOn, s.server.Release)
	patience, cancel := context.WithTimeout(ctx, request.Patience)
	defer cancel()
	if err := s.server.HoldSlow(patience); err != nil {
		return unavailable(err)
	}
	containers := s.tasks.containers.all()
	for _, c := range containers {
		if err := c.Idle(patience); err != nil {
			return unavailable(err)
		}
	}
	undo = append(undo, s.queue.GoOn)
	if err := s.queue.Hold(patience); err != nil {
		return unavailable(err)
	}
	times.Drained = time.Now()

	if err := step(ctx, s.server.HoldAll); err != nil {
		return unavailable(err)
	}
	times.Stopped = time.Now()
	for _, c := range containers {
		undo = append(undo, c.GoOn)
		if err := step(ctx, c.Hold); err != nil {
			return unavailable(err)
		}
	}
	for _, lingering := range stdio.Lingering() {
		undo = append(undo, lingering.GoOn)
		if err := step(ctx, lingering.Hold); err != nil {
			return unavailable(err)
		}
	}
	times.Held = time.Now()
	var files handover.Files
	state := s.state(&files)
	if state.Server, err = commit(ctx, s.server, &files); err != nil {
		return unavailable(err)
	}
	return program.Run(state, &files, times)
}

// try has the program restore a copy of everything, as a child. What happens
// meanwhile can make a copy that is not right, so it gets a second chance.
func (s *shim) try(ctx context.Context, program *upgrade.Program) (trial upgrade.Trial, err error) {
	for range 2 {
		files := handover.Files{Copy: true}
		state := s.state(&files)
		trial, err = program.Try(ctx, state, &files)
		if trial.Refused == "" {
			break
		}
	}
	return trial, err
}

// tryCall answers control.MethodTry.
func (s *shim) tryCall(ctx context.Context, payload []byte) ([]byte, error) {
	var request control.Upgrade
	if err := control.Decode(payload, &request); err != nil {
		return nil, err
	}
	if !s.upgrade.underWay.TryLock() {
		return nil, fmt.Errorf("an upgrade is under way: %w", errdefs.ErrUnavailable)
	}
	defer s.upgrade.underWay.Unlock()
	began := time.Now()
	program, err := upgrade.Open(request.Path)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	trial, err := s.try(ctx, program)
	if err != nil {
		return nil, err
	}
	release, _ := version.Get()
	return control.Encode(control.Tried{From: release, To: trial.Release, Took: time.Since(began)})
}

func step(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	return f(ctx)
}

func commit(ctx context.Context, server *ttrpcserver.Server, files *handover.Files) (ttrpcserver.State, error) {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	return server.Commit(ctx, files)
}

// unavailable is the class of what may succeed later.
func unavailable(err error) error {
	return fmt.Errorf("the shim could not be brought to a stop: %w: %w", err, errdefs.ErrUnavailable)
}
