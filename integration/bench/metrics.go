package main

import (
	"fmt"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
)

// measureMetrics asks for statistics through containerd, as a monitor does, and
// the shim itself. The limit is a call that takes the same way and reads nothing,
// State.
func measureMetrics(b *bench) error {
	return b.each(b.contenders, forever, func(all map[string]*running) error {
		for _, c := range b.contenders { // the first one is more than the rest
			if _, err := all[c.name].task.Metrics(b.context()); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		for round := range b.rounds(b.n.calls) {
			for _, c := range shuffled(b.contenders, round) {
				r := all[c.name]
				for metric, call := range map[string]func() error{
					"metrics": func() error { _, err := r.task.Metrics(b.context()); return err },
					"state":   func() error { _, err := r.task.Status(b.context()); return err },
				} {
					before, err := cpuOf(r.pid)
					if err != nil {
						return err
					}
					began := time.Now()
					if err := call(); err != nil {
						return fmt.Errorf("%s: %s: %w", c.name, metric, err)
					}
					took := time.Since(began)
					after, err := cpuOf(r.pid)
					if err != nil {
						return err
					}
					b.addTime(metric+".time", c.name, took)
					b.addTime(metric+".cpu", c.name, after-before)
				}
			}
		}
		for _, c := range b.contenders {
			if err := b.stats(c, all[c.name].ID()); err != nil {
				return err
			}
		}
		return nil
	})
}

// stats asks a shim past containerd.
func (b *bench) stats(c contender, id string) error {
	shim, err := b.daemon.Shim(id)
	if err != nil {
		return err
	}
	defer shim.Close()
	for range b.rounds(b.n.calls) {
		began := time.Now()
		if _, err := shim.Stats(b.ctx, &task.StatsRequest{ID: id}); err != nil {
			return fmt.Errorf("%s: stats: %w", c.name, err)
		}
		b.addTime("metrics.shim", c.name, time.Since(began))
	}
	return nil
}
