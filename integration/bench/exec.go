package main

import (
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// execOnce is one exec's life.
func (r *running) execOnce(id string) (time.Duration, error) {
	ctx := r.b.context()
	began := time.Now()
	process, err := r.task.Exec(ctx, id, &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"PATH=/bin"}}, cio.NullIO)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	exits, err := process.Wait(ctx)
	if err == nil {
		err = process.Start(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("start exec: %w", err)
	}
	select {
	case status := <-exits:
		if status.ExitCode() != 0 || status.Error() != nil {
			return 0, fmt.Errorf("the exec ended with %d, %w", status.ExitCode(), status.Error())
		}
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if _, err := process.Delete(ctx); err != nil {
		return 0, fmt.Errorf("delete exec: %w", err)
	}
	return time.Since(began), nil
}

func measureExec(b *bench) error {
	return b.each(b.contenders, forever, func(all map[string]*running) error {
		for round := range b.rounds(b.n.rounds) {
			for _, c := range shuffled(b.contenders, round) {
				b.rest()
				before, err := cpuOf(all[c.name].pid)
				if err != nil {
					return err
				}
				took, err := all[c.name].execOnce(b.name("exec"))
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				after, err := cpuOf(all[c.name].pid)
				if err != nil {
					return err
				}
				b.addTime("exec.total", c.name, took)
				b.addTime("exec.cpu", c.name, after-before)
			}
		}
		return nil
	})
}
