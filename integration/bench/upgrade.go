package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sync/errgroup"

	"github.com/cleatrun/cleat/integration/daemon"
)

// measureUpgrade replaces the program of a running shim by itself: at rest, then
// while State, Stats and execs are asked for.
func measureUpgrade(b *bench) error {
	r, err := b.start(b.contenders[0], b.name("upgrade"), forever)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	shim, err := b.daemon.Shim(r.ID())
	if err != nil {
		return err
	}
	defer shim.Close()
	if err = b.upgrades(shim, "upgrade-rest"); err != nil {
		return err
	}
	err = b.underLoad(shim, r, func() error { return b.upgrades(shim, "upgrade-load") })
	return err
}

func (b *bench) upgrades(shim *daemon.Shim, metric string) error {
	for range b.rounds(b.n.calls / 2) {
		u, err := shim.Upgrade(b.ctx, b.tools.Shim)
		if err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
		t := u.Times
		for _, part := range []struct {
			name     string
			from, to time.Time
		}{
			{"trial", t.Asked, t.Tried}, {"slow-calls", t.Tried, t.Drained}, {"stop", t.Drained, t.Held}, {"save", t.Held, t.Saved},
			{"exec", t.Saved, t.Arrived}, {"initialise", t.Arrived, t.Begun}, {"restore", t.Begun, t.Built}, {"go-on", t.Built, t.Served},
		} {
			b.addTime(metric+"."+part.name, cleat, part.to.Sub(part.from))
		}
		b.addTime(metric+".pause", cleat, u.Pause)
	}
	return nil
}

// underLoad does something while a shim is busy.
func (b *bench) underLoad(shim *daemon.Shim, r *running, do func() error) error {
	loaded, stop := context.WithCancel(b.ctx)
	defer stop()
	var load errgroup.Group
	again := func(call func() error) {
		load.Go(func() error {
			for loaded.Err() == nil {
				if err := call(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 4 {
		again(func() error {
			_, err := shim.State(b.ctx, &task.StateRequest{ID: r.ID()})
			return err
		})
	}
	again(func() error {
		_, err := shim.Stats(b.ctx, &task.StatsRequest{ID: r.ID()})
		return err
	})
	number := 0
	again(func() error {
		number++
		_, err := r.execOnce(fmt.Sprint("load-", number))
		return err
	})
	err := do()
	stop()
	return errors.Join(err, load.Wait())
}
