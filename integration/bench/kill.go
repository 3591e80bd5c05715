package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// measureKill sends a signal that an init process does not get without asking for
// it. Whether the shim has run a program for it is told by the page faults of its
// children.
func measureKill(b *bench) error {
	return b.each(b.contenders, forever, func(all map[string]*running) error {
		for round := range b.rounds(b.n.rounds) {
			for _, c := range shuffled(b.contenders, round) {
				if err := b.kill(c, all[c.name]); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
		}
		return nil
	})
}

func (b *bench) kill(c contender, r *running) error {
	faults, err := faultsOfChildren(r.pid)
	if err != nil {
		return err
	}
	before, err := cpuOf(r.pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := r.task.Kill(b.context(), unix.SIGUSR1); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuOf(r.pid)
	if err != nil {
		return err
	}
	now, err := faultsOfChildren(r.pid)
	if err != nil {
		return err
	}
	spawned := 0.0
	if now > faults {
		spawned = 1
	}
	b.addTime("kill.time", c.name, took)
	b.addTime("kill.cpu", c.name, after-before)
	b.add("kill.spawned", c.name, spawned)
	return nil
}
