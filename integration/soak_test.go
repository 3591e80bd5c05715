package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

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
	const given = 2 << 20            // bytes of a heap that was given back; else it is that much and more
	const rested = 5 << 10           // KiB of a shim that has; Go does it in the background
	const slack = 1000               // objects, of some thousands
	const patience = 5 * time.Second // more than a shim rests before
	const enough = 32                // execs to be worth it
	l := newLone(t)
	l.ctx = t.Context() // the long form takes hours
	m := l.member("soak", group("soak")).run()
	pid := m.shimPID()
	long := context.WithoutCancel(l.ctx)

	var execs atomic.Int64
	done := 0
	pass := func(most int) {
		t.Helper()
		var all errgroup.Group
		var containers atomic.Int64
		containers.Store(int64(done))
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
		done = most
	}
	type counters struct {
		Goroutines, EventsPending          int
		EventsTaken                        uint64
		Heap, HeapLive, HeapObjects, Calls uint64
	}
	inspect := func() (c counters) {
		t.Helper()
		var answer struct {
			Counters counters
			Requests []struct{ Answered bool }
			Calls    []any
		}
		err := m.shim.Control(long, "Inspect", nil, &answer)
		// An answer is here before it is noted down there that it has left.
		open := slices.DeleteFunc(answer.Requests, func(r struct{ Answered bool }) bool { return r.Answered })
		if err != nil || len(open) != 1 || len(answer.Calls) != 0 {
			t.Fatalf("inspection: %+v, %v", answer, err)
		}
		return answer.Counters
	}
	// sample is what there is when the shim has come to rest and given back what
	// the work has left: the last connection, too, is noticed to be closed some
	// time after. It gives back once in so many operations: where a pass had a rest,
	// what came after that may be too few, and needs more to follow.
	sample := func(rests func(footprint, counters) error) (f footprint, c counters) {
		t.Helper()
		more := time.Now().Add(patience)
		eventually(t, func() error {
			f, c = m.footprint(pid), inspect()
			if c.Heap > given || f.memory > rested {
				if time.Now().After(more) {
					for range enough {
						if err := m.execOnce(long, fmt.Sprint("exec-", execs.Add(1)), 0); err != nil {
							t.Fatal(err)
						}
					}
					more = time.Now().Add(patience)
				}
				return fmt.Errorf("the heap has %d bytes, the shim %d KiB", c.Heap, f.memory)
			}
			return rests(f, c)
		})
		t.Logf("%6d execs, %5d containers: %d descriptors, %d threads, %d goroutines, %d KiB anonymous, heap %d KiB, of it %d KiB in %d objects",
			execs.Load(), done, f.descriptors, f.threads, c.Goroutines, f.memory, c.Heap>>10, c.HeapLive>>10, c.HeapObjects)
		return f, c
	}

	warm := max(lanes, fewer(2*lanes)) // what the first ones make is not growth
	n := upgrades(t, 12)
	pass(warm)
	whatever := func(footprint, counters) error { return nil }
	before, first := sample(whatever)
	for size := 100; size < n; size *= 2 { // of a long run, the curve
		pass(warm + size)
		sample(whatever)
	}
	pass(warm + n)
	sample(func(after footprint, last counters) error {
		err := after.grown(before)
		if last.Goroutines > first.Goroutines+2 {
			err = errors.Join(err, fmt.Errorf("%d goroutines, %d before", last.Goroutines, first.Goroutines))
		}
		if last.EventsPending > 0 {
			err = errors.Join(err, fmt.Errorf("%d events are pending", last.EventsPending))
		}
		// The memory that Go has differs with how the objects lie in it. What is kept
		// of each container or exec, if anything, is among the objects.
		if last.HeapObjects > first.HeapObjects+slack {
			err = errors.Join(err, fmt.Errorf("%d objects, %d before", last.HeapObjects, first.HeapObjects))
		}
		return err
	})
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.finish()
}
