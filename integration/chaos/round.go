package main

// One round: the plan is lived, then looked at.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatrun/cleat/integration/daemon"
)

const (
	// roundTime bounds a round, beyond the lives in it.
	roundTime = 4 * time.Minute

	// settleTime is for what may go on after the last call is answered. On an
	// idle machine that takes a tenth of a second, and after containerd was killed
	// five.
	settleTime = 20 * time.Second
)

// round is one under way.
type round struct {
	w          *world
	lives      map[string]*life
	restarting sync.Mutex // held by who restarts containerd

	faults sync.WaitGroup
	mu     sync.Mutex // guards what follows
	done   map[fault]int
	missed map[fault]int
}

// result is what came of a round.
type result struct {
	Seed       uint64        `json:"seed"`
	Round      int           `json:"round"`
	Kinds      []fault       `json:"kinds"`
	Containers int           `json:"containers"`
	Execs      int           `json:"execs"`
	Events     int           `json:"events"`
	Seconds    float64       `json:"seconds"`
	Done       map[fault]int `json:"done"`   // faults that were done
	Missed     map[fault]int `json:"missed"` // those that came when there was nothing to do them to
	Violations []violation   `json:"violations,omitempty"`
	Report     string        `json:"report,omitempty"` // file
}

// play plays one round. reports is the folder for what there is to say of one in
// which anything is wrong.
func play(ctx context.Context, c cast, runtime string, p plan, reports string) (res result, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	began := time.Now()
	w, err := newWorld(ctx, c, runtime, p)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, w.d.Remove()) }()
	r := &round{w: w, lives: map[string]*life{}, done: map[fault]int{}, missed: map[fault]int{}}
	if err := r.run(ctx); err != nil {
		return res, err
	}
	r.check(ctx)
	res = result{
		Seed: p.Seed, Round: p.Round, Kinds: p.Kinds, Containers: len(p.Containers), Execs: p.execs(), Events: r.events(),
		Seconds: time.Since(began).Seconds(), Done: r.done, Missed: r.missed, Violations: w.wrong,
	}
	if len(w.wrong) > 0 && reports != "" {
		res.Report = filepath.Join(reports, fmt.Sprintf("%s-%d-%d.txt", filepath.Base(runtime), p.Seed, p.Round))
		if err := os.WriteFile(res.Report, []byte(r.report(res)), 0o644); err != nil {
			return res, err
		}
	}
	return res, nil
}

// run lives the plan.
func (r *round) run(ctx context.Context) error {
	w := r.w
	if err := w.order(); err != nil {
		return err
	}
	others, alone := sync.WaitGroup{}, make(chan struct{})
	for _, c := range w.plan.Containers {
		l, err := w.newLife(c)
		if err != nil {
			return err
		}
		l.reached = func(container string, at step) { r.reached(ctx, container, at) }
		if err := l.make(ctx); err != nil {
			return fmt.Errorf("make container %s: %w", c.ID, err)
		}
		r.lives[c.ID] = l
	}
	first := r.lives[anchor]
	first.hold = alone
	var all sync.WaitGroup
	all.Go(func() { first.live(ctx) })
	select {
	case <-first.running:
	case <-ctx.Done():
	}
	before := r.anchored(ctx)
	for _, l := range r.lives {
		if l != first {
			others.Go(func() { l.live(ctx) })
		}
	}
	others.Wait()
	r.faults.Wait()
	r.compare(ctx, before)
	close(alone)
	all.Wait()
	r.faults.Wait()
	return nil
}

// reached begins the faults that are planned for a step of a container.
func (r *round) reached(ctx context.Context, container string, at step) {
	for _, f := range r.w.plan.Faults {
		if f.Container != container || f.At != at {
			continue
		}
		switch f.Kind {
		case killRuntime, slowRuntime, hastyCaller:
			r.count(r.done, f.Kind) // others do them
			continue
		}
		r.faults.Go(func() {
			pause(ctx, f.After)
			r.w.note(orDash(""), "FAULT: %s", f)
			err := r.fire(ctx, f)
			switch {
			case errors.Is(err, errNothing):
				r.count(r.missed, f.Kind)
			case err != nil && r.mayFail(f):
				r.count(r.missed, f.Kind)
			case err != nil:
				r.w.violate(refused, f.Container, "%s: %v", f, err)
			default:
				r.count(r.done, f.Kind)
			}
			r.w.note(orDash(""), "fault over: %s: %v", f, err)
		})
	}
}

// mayFail tells whether what a fault does may fail beside the other faults of the
// round: an upgrade that is refused must leave everything as it was, no more.
func (r *round) mayFail(f faultPlan) bool {
	return f.Kind == goneReader || f.Kind == upgradeShim && (len(r.w.plan.Kinds) > 1 || r.w.plan.container(f.Container).Group == "")
}

func (r *round) count(counts map[fault]int, kind fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts[kind]++
}

// footprint is what the shim of the anchor has open.
type footprint struct {
	pid   int
	files []string
}

func open(pid int) footprint {
	f := footprint{pid: pid}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		to, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err == nil {
			f.files = append(f.files, to)
		}
	}
	slices.Sort(f.files)
	return f
}

// anchored is the footprint at the beginning. Where containerd is away at that moment
// its connection counts all the same: the shim has one in the end.
func (r *round) anchored(ctx context.Context) footprint {
	pid := r.w.shimPID(r.w.plan.container(anchor))
	if pid == 0 {
		return footprint{}
	}
	f := open(pid)
	const least = 2 // what it listens on, and the connection
	sockets := 0
	for _, file := range f.files {
		if strings.HasPrefix(file, "socket:") {
			sockets++
		}
	}
	for ; sockets < least; sockets++ {
		f.files = append(f.files, "socket: containerd's, which is away")
	}
	return f
}

// compare tells whether the anchor's shim has more files open than when it had
// nothing but the anchor, which is all that it has now.
func (r *round) compare(ctx context.Context, before footprint) {
	if before.pid == 0 || r.w.shimKilled(anchorGroup, r.w.began) {
		return
	}
	deadline := time.Now().Add(settleTime)
	for {
		now := open(before.pid)
		switch {
		case len(now.files) <= len(before.files):
			return
		case time.Now().After(deadline):
			r.w.violate(grown, anchor, "its shim has %d files open, and had %d:\n%s\nnow\n%s", len(now.files), len(before.files),
				strings.Join(before.files, "\n"), strings.Join(now.files, "\n"))
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// check looks at what is left and at what was told.
func (r *round) check(ctx context.Context) {
	w := r.w
	for _, line := range w.settled(ctx, settleTime) {
		w.violate(leftOver, "", "%s", line)
	}
	for line := range strings.Lines(w.d.Log()) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") || strings.Contains(line, "by a fault of its own") {
			w.violate(crashed, "", "%s", line)
		}
	}
	restarted := w.wasWrong(killContainerd, "", w.began)
	for _, c := range w.plan.Containers {
		l := r.lives[c.ID]
		dead := w.shimKilled(c.shim(), l.since)
		told := w.d.Relay().Of(c.ID)
		for _, v := range judge(told, story{Restarted: restarted, Killed: dead, Exits: l.exits}) {
			w.violate(v.Category, c.ID, "%s", v.Text)
		}
		if dead && !restarted {
			r.checkDead(c, told)
		}
	}
}

// checkDead looks at the events of a container whose shim was killed: what the
// shim has not told any more containerd tells, exactly once.
func (r *round) checkDead(c containerPlan, told []daemon.Event) {
	w := r.w
	w.mu.Lock()
	view := w.views[0]
	w.mu.Unlock()
	var exit *daemon.Event
	for _, e := range view.Of(c.ID) {
		switch {
		case e.Topic == "/tasks/create":
			exit = nil
		case e.ExecID != "":
		case e.Topic == "/tasks/exit" && exit == nil:
			exit = &e
		case e.Topic == "/tasks/exit" && (e.PID != exit.PID || e.ExitStatus != exit.ExitStatus):
			w.violate(exitWrong, c.ID, "its exit is told as %s, then as %s", exit, e)
		case e.Topic == "/tasks/delete" && exit == nil:
			w.violate(exitLost, c.ID, "its delete is told and no exit: %s", e)
		case e.Topic == "/tasks/delete" && (e.PID != exit.PID || e.ExitStatus != exit.ExitStatus):
			w.violate(exitWrong, c.ID, "its exit is told as %s, its delete as %s", exit, e)
		}
	}
	if exit == nil && len(told) > 0 {
		w.violate(exitLost, c.ID, "its shim was killed, and nobody has told its exit")
	}
}

func (r *round) events() (n int) {
	for _, c := range r.w.plan.Containers {
		n += len(r.w.d.Relay().Of(c.ID))
	}
	return n
}

// report is all that is known of a round.
func (r *round) report(res result) string {
	var text strings.Builder
	for _, v := range res.Violations {
		fmt.Fprintf(&text, "%s %s: %s\n", v.Category, orDash(v.Container), v.Text)
	}
	fmt.Fprintf(&text, "\n%s\n%s\n%s", r.w.plan, r.w.line(""), r.w.d.Log())
	return text.String()
}
