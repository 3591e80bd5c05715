package main

// The world of one round: a private containerd whose disks, OCI runtime and
// loggers are ours, and what is known of what has gone wrong in it, and when.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/poll"
	"github.com/cleatrun/cleat/integration/tools"
)

// cast are the programs that chaos brings along.
type cast struct {
	guest, logger string
	runtimes      string // folder with what stands before the OCI runtime, as runc
	oci           string // the OCI runtime
	image         string
	tools         tools.Tools
	shim          string // folder with a copy of the shim under test
}

// world is one round's.
type world struct {
	plan    plan
	cast    cast
	runtime string
	d       *daemon.Daemon
	began   time.Time

	orders, marks, logs, bundles string // folders; the last two are small filesystems

	mu       sync.Mutex // guards what follows
	up       chan struct{}
	spans    []span
	kills    map[string][]time.Time // of shims, by name
	killed   map[string]int         // loggers, by container
	timeline []string
	views    []*daemon.Events // one subscription for each life of containerd
	wrong    []violation
}

// span is a time in which something was wrong.
type span struct {
	what     fault
	who      string // container, or what was full
	from, to time.Time
}

// sizes of the small filesystems
const (
	bundlesSize = "16m"
	logsSize    = "8m"
)

func newWorld(ctx context.Context, c cast, runtime string, p plan) (*world, error) {
	w := &world{plan: p, cast: c, runtime: runtime, kills: map[string][]time.Time{}, killed: map[string]int{}, began: time.Now(), up: make(chan struct{})}
	var err error
	w.d, err = daemon.Start(ctx, daemon.Config{
		Tools: c.tools, Runtime: runtime, Image: c.image, Relay: true,
		Path: []string{c.runtimes, c.shim},
		Env:  []string{"CHAOS_RUNTIME=" + c.oci},
	})
	if err != nil {
		return nil, err
	}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, w.d.Remove())
	}
	return w, nil
}

func (w *world) prepare(ctx context.Context) error {
	w.orders, w.marks, w.logs = w.d.Path("orders"), w.d.Path("marks"), w.d.Path("logs")
	w.bundles = w.d.Path("state", "io.containerd.runtime.v2.task")
	for _, dir := range []string{w.orders, w.marks, w.logs, w.bundles} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	for dir, size := range map[string]string{w.bundles: bundlesSize, w.logs: logsSize} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=711,size="+size); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	w.d.Relay().Told = func(e daemon.Event) { w.note(e.ContainerID, "told: %s", e) }
	return w.open(ctx)
}

// open subscribes to a containerd that has come up, and lets clients and shims
// at it.
func (w *world) open(ctx context.Context) error {
	var view *daemon.Events
	// A client that somebody has made while there was no containerd may have to
	// find that out first.
	err := poll.Until(ctx, func() (err error) {
		view, err = w.d.Subscribe(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.d.Relay().Listen(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.views = append(w.views, view)
	close(w.up)
	return nil
}

// restart kills containerd and starts it again after a while.
func (w *world) restart(ctx context.Context, away time.Duration) error {
	w.mu.Lock()
	w.up = make(chan struct{})
	w.mu.Unlock()
	ended := w.span(killContainerd, "")
	defer ended()
	if err := w.d.Kill(); err != nil {
		return err
	}
	pause(ctx, away)
	if err := w.d.Run(ctx); err != nil {
		return err
	}
	return w.open(ctx)
}

// ready waits until containerd is there.
func (w *world) ready(ctx context.Context) error {
	w.mu.Lock()
	up := w.up
	w.mu.Unlock()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("containerd is not there: %w", ctx.Err())
	}
}

// span notes that something is wrong from now until the returned function is
// called.
func (w *world) span(what fault, who string) (ended func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spans = append(w.spans, span{what: what, who: who, from: time.Now()})
	n := len(w.spans) - 1
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.spans[n].to = time.Now()
	}
}

// wasWrong says whether something was wrong at any time since then.
func (w *world) wasWrong(what fault, who string, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.spans {
		if s.what == what && s.who == who && (s.to.IsZero() || s.to.After(since)) {
			return true
		}
	}
	return false
}

// shimKilled says whether a shim was killed since then.
func (w *world) shimKilled(name string, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, at := range w.kills[name] {
		if at.After(since) {
			return true
		}
	}
	return false
}

func (w *world) noteKill(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kills[name] = append(w.kills[name], time.Now())
}

// note adds a line about a container to the timeline.
func (w *world) note(container, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timeline = append(w.timeline, fmt.Sprintf("%8.3f %-8s %s", time.Since(w.began).Seconds(), container, fmt.Sprintf(format, args...)))
}

// line tells of containers what happened to them.
func (w *world) line(of string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var text strings.Builder
	for _, line := range w.timeline {
		if name := strings.Fields(line)[1]; of == "" || name == of || name == "-" {
			text.WriteString(line + "\n")
		}
	}
	return text.String()
}

// violate notes what must not be.
func (w *world) violate(c category, container, format string, args ...any) {
	v := violation{Category: c, Container: container, Text: fmt.Sprintf(format, args...)}
	w.note(orDash(container), "WRONG: %s: %s", v.Category, v.Text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, v)
}

func orDash(name string) string {
	if name == "" {
		return "-"
	}
	return name
}

// leftovers are what is there of containers, but for the filesystems, and for what
// a containerd leaves that is killed while it removes a bundle: it gives it a
// name with a dot first, and does not come back to it.
func (w *world) leftovers(ctx context.Context) []string {
	restarted := w.wasWrong(killContainerd, "", w.began)
	var list []string
	for _, line := range w.d.Leftovers(ctx) {
		switch {
		case line == "mount "+w.bundles, line == "mount "+w.logs:
		case restarted && strings.Contains(line, "/"+w.d.Namespace+"/."):
		default:
			list = append(list, line)
		}
	}
	return list
}

func (w *world) settled(ctx context.Context, limit time.Duration) []string {
	return place.Settled(limit, func() []string { return w.leftovers(ctx) })
}

// shimPIDs are the processes of a container's shim: of its daemon, that is.
func (w *world) shimPID(c containerPlan) int {
	ids := []string{c.ID}
	if c.Group != "" {
		ids = nil
		for _, other := range w.plan.Containers {
			if other.Group == c.Group {
				ids = append(ids, other.ID)
			}
		}
	}
	for _, p := range w.d.Processes() {
		words := strings.Fields(p.Command)
		if len(words) == 0 || !strings.HasPrefix(filepath.Base(words[0]), "containerd-shim-") {
			continue
		}
		if last := words[len(words)-1]; last == "start" || last == "delete" || last == "-info" || strings.Contains(p.Command, "-upgrade-try") {
			continue
		}
		for i, word := range words[:len(words)-1] {
			if word != "-id" {
				continue
			}
			for _, id := range ids {
				if words[i+1] == id {
					return p.PID
				}
			}
		}
	}
	return 0
}

// pause waits, for no longer than ctx lasts: it is what the plan says, no guess of
// when something will have happened.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
