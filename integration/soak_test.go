package integration

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// TestNothingGrowsWithExecsAndContainers takes one shim through many of both. It
// must be left with what it had before. The long form is
//
//	CLEAT_TEST_ROUNDS=10000 go test -count 1 -v -timeout 10h -run TestNothingGrows .
//
// for that number of containers and ten times as many execs.
func TestNothingGrowsWithExecsAndContainers(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	const lanes = 4
	l := newLone(t)
	l.ctx = t.Context() // the long form takes hours
	m := l.member("soak", group("soak")).run()
	pid := m.shimPID()
	long := context.WithoutCancel(l.ctx)

	var execs, containers atomic.Int64
	pass := func(most int) {
		t.Helper()
		var all errgroup.Group
		for range lanes {
			all.Go(func() error {
				for i := containers.Add(1); i <= int64(most); i = containers.Add(1) {
					for range 10 {
						n := execs.Add(1)
						if err := m.execOnce(long, fmt.Sprint("exec-", n), int(n%200)); err != nil {
							return fmt.Errorf("exec %d: %w", n, err)
						}
					}
					code := int(i % 200)
					short := l.prepare(fmt.Sprint("short-", i), group("soak"), args("sh", "-c", fmt.Sprint("exit ", code)))
					if err := short.liveOnce(long, code); err != nil {
						return fmt.Errorf("container %d: %w", i, err)
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	type counters struct {
		Goroutines, EventsPending int
		EventsTaken               uint64
	}
	inspect := func() (c counters) {
		t.Helper()
		var answer struct {
			Counters        counters
			Requests, Calls []any
		}
		if err := m.shim.Control(long, "Inspect", nil, &answer); err != nil || len(answer.Requests) != 1 || len(answer.Calls) != 0 {
			t.Fatalf("inspection: %+v, %v", answer, err)
		}
		return answer.Counters
	}

	const warm = 2 * lanes // what the first ones make is not growth
	n := upgrades(t, 12)
	pass(warm)
	before, first := m.footprint(pid), inspect()
	containers.Store(warm)
	pass(warm + n)
	t.Logf("%d execs, %d containers", execs.Load(), warm+n)
	eventually(t, func() error {
		after, last := m.footprint(pid), inspect()
		t.Logf("before %+v %+v, after %+v %+v", before, first, after, last)
		err := after.grown(before)
		if last.Goroutines > first.Goroutines+2 {
			err = errors.Join(err, fmt.Errorf("%d goroutines, %d before", last.Goroutines, first.Goroutines))
		}
		if last.EventsPending > 0 {
			err = errors.Join(err, fmt.Errorf("%d events are pending", last.EventsPending))
		}
		return err
	})
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.finish()
}
