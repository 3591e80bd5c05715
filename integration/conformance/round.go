package main

// One round: the whole suite once, on one candidate.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cleatrun/cleat/integration/conformance/cell"
	"github.com/cleatrun/cleat/integration/tools"
)

// candidate is what containerd runs containers with.
type candidate struct {
	name    string
	runtime string            // that the tests ask for
	links   map[string]string // found first in containerd's PATH
}

const stockShim = "containerd-shim-runc-v2"

var candidates = []candidate{
	{name: "stock", runtime: "io.containerd.runc.v2"},
	{name: "cleat", runtime: "io.containerd.cleat.v2"},
	// Not only the tests' default runtime is ours then but also the one
	// that some of them name.
	{name: "drop-in", runtime: "io.containerd.runc.v2", links: map[string]string{stockShim: tools.ShimName}},
}

// runner runs rounds.
type runner struct {
	folders  []string      // of the programs
	busybox  string        // one of them
	logs     string        // folder for what the suite and its containerd write
	quiet    time.Duration // how long nothing may happen
	limit    time.Duration // of one round
	progress io.Writer
}

// round is what one round gave.
type round struct {
	Results map[string]result `json:"results"`
	Seconds float64           `json:"seconds"`
	Left    []string          `json:"left,omitempty"` // processes that were there after the suite had ended
	Logs    []string          `json:"logs"`
}

// round runs the tests names. A test that hangs, or that takes the suite with
// it, costs its own result only: what had not begun is run again without it.
func (r *runner) round(ctx context.Context, c candidate, number int, names []string) (round, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, r.limit, fmt.Errorf("a round has not ended within %s", r.limit))
	defer cancel()
	fmt.Fprintf(r.progress, "%s, round %d: ", c.name, number)

	whole := round{Results: map[string]result{}}
	batches := [][]string{names}
	for len(batches) > 0 {
		batch := batches[0]
		batches = batches[1:]
		log := filepath.Join(r.logs, fmt.Sprintf("%s-%d-%d.log", c.name, number, len(whole.Logs)+1))
		whole.Logs = append(whole.Logs, log)
		s, left, err := r.batch(ctx, c, batch, log)
		if err != nil {
			fmt.Fprintln(r.progress)
			return whole, fmt.Errorf("%s, round %d: %w (see %s)", c.name, number, err, log)
		}
		whole.Left = append(whole.Left, left...)
		suspects := running(s, crashed)
		for name, result := range s.results {
			top, _, _ := strings.Cut(name, "/")
			if len(suspects) > 1 && slices.Contains(suspects, top) {
				continue // one of them did it; alone each shows whether it was it
			}
			whole.Results[name] = result
		}
		if len(suspects) > 1 {
			for _, name := range suspects {
				batches = append(batches, []string{name})
			}
		}
		var again []string
		for _, name := range batch {
			if _, ok := s.results[name]; !ok {
				again = append(again, name)
			}
		}
		switch {
		case len(again) == len(batch):
			fmt.Fprintln(r.progress)
			return whole, fmt.Errorf("%s, round %d: no test began (see %s)", c.name, number, log)
		case len(again) > 0:
			batches = append(batches, again)
		}
	}
	whole.Seconds = time.Since(began).Seconds()
	counts := map[outcome]int{}
	for _, name := range names {
		counts[whole.Results[name].Outcome]++
	}
	fmt.Fprintf(r.progress, " %s, %.0f s\n", tally(counts), whole.Seconds)
	return whole, nil
}

// running lists the top tests that were cut off with outcome o.
func running(s *stream, o outcome) []string {
	var list []string
	for name, result := range s.results {
		if result.Outcome == o && !strings.Contains(name, "/") {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// batch runs tests in one cell, until they have ended or nothing happens any
// more.
func (r *runner) batch(ctx context.Context, c candidate, names []string, log string) (*stream, []string, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, nil, err
	}
	defer out.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stuck atomic.Bool
	watchdog := time.AfterFunc(r.quiet, func() {
		stuck.Store(true)
		cancel()
	})
	defer watchdog.Stop()
	s := newStream(func(name string, result result) {
		watchdog.Reset(r.quiet)
		if result.Outcome != "" && !strings.Contains(name, "/") {
			io.WriteString(r.progress, map[outcome]string{passed: ".", skipped: "s"}[result.Outcome])
			if result.Outcome == failed {
				io.WriteString(r.progress, "F")
			}
		}
	})

	pipe, printed := io.Pipe()
	parsed := make(chan error, 1)
	go func() { parsed <- s.read(pipe) }() // ends when the pipe is closed
	ended, err := cell.Run(ctx, cell.Command{
		Folders: r.folders,
		Links:   c.links,
		Args: []string{testProgram, "-test.v=test2json", "-test.root", "-test.run", "^(" + strings.Join(names, "|") + ")$",
			// The watchdog is faster, and knows which test it is.
			"-test.timeout", (2 * r.limit).String()},
		Env:     []string{"TEST_RUNTIME=" + c.runtime},
		Busybox: r.busybox,
		Stdout:  io.MultiWriter(out, printed),
		Stderr:  out,
	})
	printed.Close()
	if failed := <-parsed; err == nil {
		err = failed
	}
	switch {
	case stuck.Load():
		// Its own doing: what is left of the error is that of removing the cell.
		if errors.Is(err, context.Canceled) {
			err = nil
		}
		s.cut(hung)
		io.WriteString(r.progress, "H")
	case err != nil:
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
			err = cause
		}
	default:
		if len(s.active) > 0 {
			io.WriteString(r.progress, "D")
		}
		s.cut(crashed)
	}
	return s, ended.Left, err
}
