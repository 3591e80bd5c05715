package main

import (
	"errors"
	"fmt"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// measureGrowth looks at how what one container costs depends on how many there
// are.
func measureGrowth(b *bench) error {
	c := b.contenders[0]
	group := oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": b.name("growth")})
	err := b.crowdOf(c, b.n.grouped, func(all []*running) error { return b.lookAtCrowd("growth-grouped", all, 1) }, group)
	if err != nil {
		return err
	}
	return b.crowdOf(c, b.n.alone, func(all []*running) error { return b.lookAtCrowd("growth-alone", all, len(all)) })
}

func (b *bench) lookAtCrowd(metric string, all []*running, shims int) error {
	at := fmt.Sprintf("%s-%d.", metric, len(all))
	var private float64
	for _, r := range all[:shims] {
		f, err := footprintOf(r.pid)
		if err != nil {
			return err
		}
		private += f.private
	}
	b.add(at+"memory", cleat, private/float64(len(all)))
	for i := range b.rounds(b.n.calls) {
		if err := b.askOf(at, all[i*7919%len(all)]); err != nil {
			return err
		}
	}
	for i := range b.rounds(max(b.n.rounds/4, 1)) {
		took, err := all[i*7919%len(all)].execOnce(b.name("exec"))
		if err != nil {
			return err
		}
		b.addTime(at+"exec", cleat, took)
	}
	return nil
}

// askOf asks one container's shim twice.
func (b *bench) askOf(at string, r *running) (err error) {
	shim, err := b.daemon.Shim(r.ID())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shim.Close()) }()
	// The first call of a connection waits for that, too.
	if _, err := shim.State(b.ctx, &task.StateRequest{ID: r.ID()}); err != nil {
		return err
	}
	began := time.Now()
	if _, err := shim.State(b.ctx, &task.StateRequest{ID: r.ID()}); err != nil {
		return err
	}
	told := time.Now()
	if _, err := shim.Stats(b.ctx, &task.StatsRequest{ID: r.ID()}); err != nil {
		return err
	}
	b.addTime(at+"state", cleat, told.Sub(began))
	b.addTime(at+"stats", cleat, time.Since(told))
	return nil
}
