package main

import (
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sync/errgroup"
)

// life is one task's life through containerd: what a client waits for.
func (b *bench) life(c contender, id, metric string, creator cio.Creator) error {
	container, err := b.prepare(c, id, []string{"true"})
	if err != nil {
		return err
	}
	ctx := b.context()
	began := time.Now()
	task, err := container.NewTask(ctx, creator)
	if err != nil {
		return fmt.Errorf("%s: create task: %w", c.name, err)
	}
	created := time.Now()
	exits, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	listened := time.Now()
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("%s: start task: %w", c.name, err)
	}
	started := time.Now()
	select {
	case status := <-exits:
		if status.ExitCode() != 0 || status.Error() != nil {
			return fmt.Errorf("%s: the container ended with %d, %w", c.name, status.ExitCode(), status.Error())
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	exited := time.Now()
	if _, err := task.Delete(ctx); err != nil {
		return fmt.Errorf("%s: delete task: %w", c.name, err)
	}
	deleted := time.Now()
	b.addTime(metric+".create", c.name, created.Sub(began))
	b.addTime(metric+".start", c.name, started.Sub(listened))
	b.addTime(metric+".exit", c.name, exited.Sub(started))
	b.addTime(metric+".delete", c.name, deleted.Sub(exited))
	b.addTime(metric+".total", c.name, deleted.Sub(began))
	return container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// rest lets pass what the kernel remembers of the container before: for some 30 ms
// after one process was moved to a cgroup, moving others is cheap.
func (b *bench) rest() {
	select {
	case <-time.After(60 * time.Millisecond):
	case <-b.ctx.Done():
	}
}

func measureLife(b *bench) error {
	all := b.contenders
	if b.crun != "" {
		all = append(all[:len(all):len(all)], all[0].on("crun", b.crun), all[1].on("crun", b.crun))
	}
	for round := range b.rounds(b.n.rounds) {
		for _, c := range shuffled(all, round) {
			b.rest()
			if err := b.life(c, b.name("life"), "life", cio.NullIO); err != nil {
				return err
			}
		}
		for _, c := range shuffled(b.contenders, round) {
			b.rest()
			if err := b.life(c, b.name("life"), "life-fifo", b.fifos(discard{})); err != nil {
				return err
			}
		}
	}
	return nil
}

func measureParallel(b *bench) error {
	const atOnce = 8
	for round := range b.rounds(b.n.rounds/4 + 1) {
		for _, c := range shuffled(b.contenders, round) {
			var all errgroup.Group
			for range atOnce {
				id := b.name("parallel")
				all.Go(func() error { return b.life(c, id, "parallel", cio.NullIO) })
			}
			if err := all.Wait(); err != nil {
				return err
			}
		}
		if err := b.parallelByHand(atOnce); err != nil {
			return err
		}
	}
	return nil
}

// parallelByHand is the limit: as many lives at once without any shim.
func (b *bench) parallelByHand(atOnce int) error {
	if _, err := b.rootfs(); err != nil { // which all share
		return err
	}
	return adopting(func() error {
		var all errgroup.Group
		for range atOnce {
			id := b.name("hand")
			all.Go(func() error { return b.byHand("parallel", "runc", b.tools.Runc, id) })
		}
		return all.Wait()
	})
}
