package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
)

// oomLimit leaves room for this test binary with the race detector.
const oomLimit = "134217728"

// newOOM makes a group with a limit on its memory.
func newOOM(t testing.TB) tree {
	t.Helper()
	tr := newGroup(t)
	if tr.onV2() {
		tr.set(t, "", "memory.max", oomLimit)
		_ = writeFile(filepath.Join(tr.dirs[""], "memory.swap.max"), "0")
		return tr
	}
	tr.set(t, "memory", "memory.limit_in_bytes", oomLimit)
	return tr
}

func mustOOM(t testing.TB, g *Group, want bool) {
	t.Helper()
	if got, err := g.OOMSince(); err != nil || got != want {
		t.Errorf("OOM: %v, %v; want %v", got, err, want)
	}
}

func mustKills(t testing.TB, g *Group, want uint64) {
	t.Helper()
	if got, err := g.OOMKills(); err != nil || got != want {
		t.Errorf("%d OOM kills, %v; want %d", got, err, want)
	}
}

// An event of the kernel's comes too late for a container that dies at once,
// which then has just failed with 137 for no reason.
func TestOOMOfAContainerThatDiesAtOnceIsTold(t *testing.T) {
	tr := newOOM(t)
	p := prepareIn(t, "eat", tr.all()...)
	g := load(t, p.Process.Pid)
	mustOOM(t, g, false)
	p.begin(t)
	p.mustEndBy(t, syscall.SIGKILL)
	mustOOM(t, g, true)
	mustOOM(t, g, false) // told once
	mustKills(t, g, 1)
}

func TestKillsBeforeLoadAreNoNews(t *testing.T) {
	tr := newOOM(t)
	eater := startIn(t, "eat", false, tr.all()...)
	eater.mustEndBy(t, syscall.SIGKILL)
	p := prepareIn(t, "eat", tr.all()...)
	g := load(t, p.Process.Pid)
	mustKills(t, g, 1)
	mustOOM(t, g, false)
	p.begin(t)
	p.mustEndBy(t, syscall.SIGKILL)
	mustOOM(t, g, true)
	mustKills(t, g, 2)
}

func TestKillByAnybodyElseIsNoOOM(t *testing.T) {
	tr := newOOM(t)
	p := startIn(t, "use:1048576", true, tr.all()...)
	g := load(t, p.Process.Pid)
	p.Process.Kill()
	p.mustEndBy(t, syscall.SIGKILL)
	mustOOM(t, g, false)
	tr.remove(t)
	mustOOM(t, g, false)
}

// The limit of a group above ours is hit, and a neighbour pays for it.
func TestNeighboursOOMIsNotOurs(t *testing.T) {
	tr := newOOM(t)
	if tr.onV2() {
		tr.enable(t, tr.dirs[""])
	}
	ours, theirs := tr.nested(t, "ours"), tr.nested(t, "theirs")
	p := startIn(t, "sleep", true, ours.all()...)
	told := make(chan bool, 16)
	g := load(t, p.Process.Pid)
	if err := g.WatchOOM(func() { oom, _ := g.OOMSince(); told <- oom }); err != nil {
		t.Fatal(err)
	}
	startIn(t, "eat", false, theirs.all()...).mustEndBy(t, syscall.SIGKILL)
	if !tr.onV2() {
		eventually(t, "the event that the kernel raises for us too", func() bool {
			g.oom.mu.Lock()
			defer g.oom.mu.Unlock()
			return !g.oom.sign.IsZero()
		})
	}
	mustOOM(t, g, false)
	mustKills(t, g, 0)
	// Now ours. If the neighbour's had been told too, it would come first.
	startIn(t, "eat", false, ours.all()...).mustEndBy(t, syscall.SIGKILL)
	if !receive(t, "our own", told) || len(told) != 0 {
		t.Error("the neighbour's was told as ours")
	}
	mustKills(t, g, 1)
}

// A nested group's victims are the container's own; V1 counts them apart.
func TestKillsInNestedGroupsCount(t *testing.T) {
	tr := newOOM(t)
	p := startIn(t, "sleep", true, tr.all()...)
	g := load(t, p.Process.Pid)
	for round := range 2 {
		inner := tr.nested(t, "inner")
		innermost := inner.nested(t, "innermost")
		startIn(t, "eat", false, innermost.all()...).mustEndBy(t, syscall.SIGKILL)
		startIn(t, "eat", false, inner.all()...).mustEndBy(t, syscall.SIGKILL)
		mustKills(t, g, uint64(2*round+2))
		inner.remove(t)
		mustKills(t, g, uint64(2*round+2))
	}
	startIn(t, "eat", false, tr.all()...)
	eventually(t, "the kill in the group itself", func() bool { n, err := g.OOMKills(); return err == nil && n == 5 })
}

// systemd removes a scope as soon as it is empty, and its counter with it. What
// the kernel has told before is all that is left.
func TestOOMOfAGroupThatIsGoneBeforeItIsReadIsTold(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, tr tree, w *watch){
		"the watch has heard of it": func(t *testing.T, tr tree, w *watch) {
			eventually(t, "what the kernel tells", w.hear)
			tr.remove(t)
		},
		"the watch has not run yet": func(t *testing.T, tr tree, w *watch) {
			tr.remove(t)
			eventually(t, "the kernel's farewell", func() bool { return pending(t, w) == 2 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newOOM(t)
			if tr.onV2() {
				t.Skip("this machine has no v1 hierarchy")
			}
			p := prepareIn(t, "eat", tr.all()...)
			g := load(t, p.Process.Pid)
			w, err := newWatch(&g.oom, func() {})
			if err != nil {
				t.Fatal(err)
			}
			defer w.stop()
			p.begin(t)
			p.mustEndBy(t, syscall.SIGKILL)
			meanwhile(t, tr, w)
			mustOOM(t, g, true)
			mustOOM(t, g, false)
			mustKills(t, g, 1)
		})
	}
}

// The same on V2, where the counter of the group above tells the rest.
func TestOOMOfAV2GroupThatIsGoneBeforeItIsReadIsTold(t *testing.T) {
	above := newOOM(t)
	if !above.onV2() {
		t.Skip("this machine has no controllers in its v2 hierarchy")
	}
	above.enable(t, above.dirs[""])
	tr := above.nested(t, "group")
	p := prepareIn(t, "eat", tr.all()...)
	g := load(t, p.Process.Pid)
	w, err := newWatch(&g.oom, func() {})
	if err != nil {
		t.Fatal(err)
	}
	w.seen()
	p.begin(t)
	p.mustEndBy(t, syscall.SIGKILL)
	eventually(t, "what the kernel tells", w.hear)
	tr.remove(t)
	mustOOM(t, g, true)
	mustOOM(t, g, false)
	mustKills(t, g, 1)
}

// pending is how many signals of a V1 watch nobody has heard.
func pending(t testing.TB, w *watch) int {
	t.Helper()
	raw, err := w.event.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info []byte
	raw.Control(func(fd uintptr) { info, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd)) })
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		if count, ok := strings.CutPrefix(line, "eventfd-count:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(count), 16, 0)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
	}
	t.Skip("this kernel does not tell")
	return 0
}

// The kernel raises the same event for the removal.
func TestRemovalIsNoOOM(t *testing.T) {
	tr := newOOM(t)
	p := startIn(t, "sleep", true, tr.all()...)
	g := load(t, p.Process.Pid)
	told := make(chan struct{}, 16)
	if err := g.WatchOOM(func() { told <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	p.Process.Kill()
	p.mustEnd(t)
	tr.remove(t)
	if !tr.onV2() { // which tells nobody
		eventually(t, "the kernel's farewell", func() bool {
			g.oom.mu.Lock()
			defer g.oom.mu.Unlock()
			return g.oom.farewells > 0
		})
	}
	mustOOM(t, g, false)
	mustKills(t, g, 0)
	if len(told) != 0 {
		t.Error("the watch took it for an OOM kill")
	}
}

// A container that goes on without one of its processes.
func TestOOMThatIsSurvivedIsTold(t *testing.T) {
	tr := newOOM(t)
	p := prepareIn(t, "parent:1", tr.all()...)
	g := load(t, p.Process.Pid)
	told := make(chan bool, 16)
	if err := g.WatchOOM(func() {
		oom, err := g.OOMSince()
		told <- oom && err == nil
	}); err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	p.awaitReady(t)
	if !receive(t, "the notification", told) {
		t.Error("who was notified was not told")
	}
	mustOOM(t, g, false)
	mustKills(t, g, 1)
	if !p.running() {
		t.Error("it did not survive")
	}
}

// It is one event, whoever asks first.
func TestExitTakesTheNewsFromTheWatch(t *testing.T) {
	tr := newOOM(t)
	p := prepareIn(t, "eat", tr.all()...)
	g := load(t, p.Process.Pid)
	told := make(chan bool, 16)
	if err := g.WatchOOM(func() { oom, _ := g.OOMSince(); told <- oom }); err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	p.mustEndBy(t, syscall.SIGKILL)
	oom, err := g.OOMSince()
	if err != nil || !oom && !receive(t, "the first notification", told) { // the watch was faster
		t.Errorf("the kill is told to neither of them: %v", err)
	}
	eventually(t, "the end of the burst", func() bool {
		g.oom.mu.Lock()
		defer g.oom.mu.Unlock()
		return time.Since(g.oom.lastGrowth) > burstGap
	})
	// The next burst is the next notification: none came for the first.
	q := startIn(t, "eat", false, tr.all()...)
	q.mustEndBy(t, syscall.SIGKILL)
	if !receive(t, "the second notification", told) {
		t.Error("the first burst was told twice")
	}
	mustKills(t, g, 2)
}

func TestOOMSurvivesAnUpgrade(t *testing.T) {
	tr := newOOM(t)
	p := prepareIn(t, "parent:1", tr.all()...)
	old := load(t, p.Process.Pid)
	before := old.State() // then the kill, which the old one does not see
	p.begin(t)
	p.awaitReady(t)
	for name, c := range map[string]struct {
		state State
		want  bool
	}{
		"not seen":          {before, true},
		"seen but not told": {old.State(), true},
		"told":              {func() State { mustOOM(t, old, true); return old.State() }(), false},
	} {
		t.Run(name, func(t *testing.T) {
			var received State
			if b, err := json.Marshal(c.state); err != nil || json.Unmarshal(b, &received) != nil {
				t.Fatal(err)
			}
			g := restore(t, received)
			told := make(chan bool, 16)
			if c.want {
				if err := g.WatchOOM(func() { oom, _ := g.OOMSince(); told <- oom }); err != nil {
					t.Fatal(err)
				}
				if !receive(t, "the notification", told) {
					t.Error("who was notified was not told")
				}
			}
			mustOOM(t, g, false)
			mustKills(t, g, 1)
		})
	}
}

func TestWatchEndsWithTheGroup(t *testing.T) {
	tr := newOOM(t)
	p := startIn(t, "sleep", true, tr.all()...)
	g := load(t, p.Process.Pid)
	if err := g.WatchOOM(func() {}); err != nil {
		t.Fatal(err)
	}
	if err := g.WatchOOM(func() {}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second watch: %v", err)
	}
	event := g.watch.event
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := event.Write(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the event descriptor is left open: %v", err)
	}
	if err := g.WatchOOM(func() {}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a watch after Close: %v", err)
	}
	mustOOM(t, g, false)
	mustKills(t, g, 0)
}

func TestGroupWithoutMemoryControllerHasNoOOM(t *testing.T) {
	_, v2 := newV2(t)
	if _, err := os.Lstat(filepath.Join(v2.Root, v2.Paths[""], "memory.events")); err == nil {
		t.Skip("the v2 hierarchy has the controller")
	}
	groups := map[string]State{"v2": v2}
	if cgroups.Mode() != cgroups.Unified {
		tr := newV1(t, "pids")
		own := "/" + filepath.Base(tr.dirs["pids"])
		groups["v1"] = State{Mode: V1, Root: tr.root, Paths: map[string]string{"pids": own}}
		groups["v1, the host's own"] = State{Mode: V1, Root: tr.root, Paths: map[string]string{"pids": own, "memory": "/"}}
	}
	for name, s := range groups {
		g := restore(t, s)
		mustOOM(t, g, false)
		mustKills(t, g, 0)
		if err := g.WatchOOM(func() {}); !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fakeV2 is a group whose directory is a plain one.
func fakeV2(t testing.TB, files map[string]string) *Group {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "above", "group")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return restore(t, State{Mode: V2, Root: root, Paths: map[string]string{"": "/above/group"}})
}

// One event for a burst of kills: with memory.oom.group, or a program that
// starts its workers again, there were hundreds.
func TestBurstIsToldOnce(t *testing.T) {
	type step struct {
		after time.Duration // since the step before
		kills uint64
		want  bool
	}
	many := func(n int, gap time.Duration, told func(i int) bool) (steps []step) {
		for i := range n {
			steps = append(steps, step{gap, uint64(i + 1), told(i)})
		}
		return steps
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"nothing", []step{{0, 0, false}, {time.Hour, 0, false}}},
		{"one", []step{{0, 1, true}, {0, 1, false}, {time.Hour, 1, false}}},
		{"many at once", []step{{0, 17, true}, {time.Second, 17, false}}},
		{"two in a burst", []step{{0, 1, true}, {100 * time.Millisecond, 2, false}}},
		{"two apart", []step{{0, 1, true}, {201 * time.Millisecond, 2, true}}},
		{"three, each soon after the other", []step{{0, 1, true}, {150 * time.Millisecond, 2, false}, {150 * time.Millisecond, 3, false}, {time.Second, 4, true}}},
		{"without an end, at most every two seconds", many(45, 100*time.Millisecond, func(i int) bool { return i == 0 || i == 21 || i == 42 })},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := fakeV2(t, map[string]string{"memory.events": "oom_kill 0\n"})
				g.oom.begin()
				for i, s := range c.steps {
					time.Sleep(s.after)
					writeKills(t, g, s.kills)
					if got, err := g.OOMSince(); err != nil || got != s.want {
						t.Errorf("step %d (%d kills): %v, %v; want %v", i, s.kills, got, err, s.want)
					}
				}
			})
		})
	}
}

func writeKills(t testing.TB, g *Group, kills uint64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir(""), "memory.events"), fmt.Appendf(nil, "oom_kill %d\n", kills), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A read that comes back with less (a kernel's hiccup, a counter that is not
// there for a moment) must not count everything a second time.
func TestOwnCounterThatFallsIsNotCountedAgain(t *testing.T) {
	g := fakeV2(t, map[string]string{"memory.events": "oom_kill 3\n"})
	mustKills(t, g, 3)
	for _, text := range []string{"", "low 0\n"} {
		if err := os.WriteFile(filepath.Join(g.dir(""), "memory.events"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mustKills(t, g, 3)
	}
	writeKills(t, g, 3)
	mustKills(t, g, 3)
	writeKills(t, g, 4)
	mustKills(t, g, 4)
}

func TestCounterThatCannotBeReadIsAnError(t *testing.T) {
	g := fakeV2(t, map[string]string{"memory.events": "oom_kill 2\n"})
	mustKills(t, g, 2)
	if err := os.WriteFile(filepath.Join(g.dir(""), "memory.events"), []byte("oom_kill many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if kills, err := g.OOMKills(); kills != 2 || err == nil {
		t.Errorf("%d, %v; want the last value and an error", kills, err)
	}
	if _, err := g.OOMSince(); err == nil {
		t.Error("no error")
	}
}

// The controller is enabled after the group was loaded.
func TestCounterIsOpenedWhenItComesToBeThere(t *testing.T) {
	g := fakeV2(t, nil)
	mustKills(t, g, 0)
	writeKills(t, g, 1)
	mustKills(t, g, 0)
	g.oom.open(g)
	mustKills(t, g, 1)
}

func TestOOMCounters(t *testing.T) {
	for _, c := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7, true}, // V1
		{"low 0\nhigh 0\nmax 9\noom 8\noom_kill 3\noom_group_kill 1\n", 3, true},
		{"oom_kill 18446744073709551615\n", 1<<64 - 1, true},
		{"oom_kill 5", 5, true},
		{"oom_kill_disable 0\nunder_oom 0\n", 0, true}, // before Linux 4.13
		{"", 0, true},
		{"some_oom_kill 4\n", 0, true},
		{"oom_kill\n", 0, true},
		{"oom_kill \n", 0, false},
		{"oom_kill x\n", 0, false},
		{"oom_kill -1\n", 0, false},
		{"oom_kill 18446744073709551616\n", 1<<64 - 1, false},
	} {
		got, err := parseOOMKill([]byte(c.text))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
}

// When the group is gone, a counter of the group above decides on V2 whether
// its last change was a kill; a sign alone, or growth alone, was a neighbour's.
func TestSuspicionOnV2(t *testing.T) {
	for _, c := range []struct {
		name         string
		sign         time.Duration // ago; 0 for none
		known        bool
		before, then uint64
		want         bool
	}{
		{"sign and growth", time.Millisecond, true, 4, 5, true},
		{"growth alone", 0, true, 4, 5, false},
		{"sign alone", time.Millisecond, true, 4, 4, false},
		{"an old sign", time.Minute, true, 4, 5, false},
		{"nothing known of the group above", time.Millisecond, false, 0, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			above := filepath.Join(t.TempDir(), "memory.events")
			if err := os.WriteFile(above, fmt.Appendf(nil, "oom_kill %d\n", c.then), 0o600); err != nil {
				t.Fatal(err)
			}
			o := &oomCounter{mode: V2, parent: above, parentKnown: c.known, parentKills: c.before}
			if c.sign != 0 {
				o.sign = time.Now().Add(-c.sign)
			}
			o.suspect()
			o.suspect() // decides once
			if got := o.known.Kills == 1; got != c.want {
				t.Errorf("%d kills, want one: %v", o.known.Kills, c.want)
			}
		})
	}
}

// V2's watch waits on the counter's own file. The hierarchy that is mounted here
// has no memory controller; its other event files wake in the same way.
func TestChangeOfAnEventFileWakesTheWatch(t *testing.T) {
	tr, _ := newV2(t)
	w := watchEvents(t, tr)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	rests := func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.signals == nil }
	sign := func() bool { w.oom.mu.Lock(); defer w.oom.mu.Unlock(); return !w.oom.sign.IsZero() }
	eventually(t, "the end of the first look", rests)
	if sign() {
		t.Error("a sign, and nothing has changed")
	}
	p := startIn(t, "sleep", true, tr.all()...) // "populated 1"
	eventually(t, "a sign of the change", sign)
	eventually(t, "the end of the look", rests)

	w.stop()
	w.oom.mu.Lock()
	w.oom.sign = time.Time{}
	w.oom.mu.Unlock()
	p.Process.Kill()
	p.mustEnd(t)
	w.signalled() // as one that was under way
	if sign() || !rests() {
		t.Error("the watch goes on after its end")
	}
	w.oom.close()
}

// watchEvents watches a file that changes as memory.events does.
func watchEvents(t testing.TB, tr tree) *watch {
	t.Helper()
	file, err := os.Open(filepath.Join(tr.dirs[""], "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	// Until it is read, it is said to have changed (kernfs_generic_poll). Load reads it.
	if _, err := file.ReadAt(make([]byte, 64), 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	w, err := newWatch(&oomCounter{mode: V2, dir: tr.dirs[""], file: file}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSeenCountersAreNotShared(t *testing.T) {
	g := fakeV2(t, map[string]string{"memory.events": "oom_kill 1\n"})
	mustKills(t, g, 1)
	s := g.State()
	kept := maps.Clone(s.OOM.Seen)
	writeKills(t, g, 2)
	mustKills(t, g, 2)
	if !maps.Equal(s.OOM.Seen, kept) {
		t.Error("a state that was handed over changed")
	}
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// Close waited for the watch, which waited for what Close held.
func TestCloseWhileTheKernelTellsOfAChange(t *testing.T) {
	tr, _ := newV2(t)
	w := watchEvents(t, tr)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	w.oom.mu.Lock() // both want it: first the watch, then Close
	tr.set(t, "", "cgroup.freeze", "1")
	eventually(t, "that the watch waits", func() bool { return blocked("(*watch).hear") })
	go func() { w.stop(); w.oom.close(); close(closed) }()
	eventually(t, "that Close waits", func() bool { return blocked("(*watch).stop") })
	w.oom.mu.Unlock()
	receive(t, "the end of Close", closed)
}

// blocked tells whether a goroutine in the function waits for a mutex.
func blocked(function string) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "[sync.Mutex.Lock") && strings.Contains(stack, function) {
			return true
		}
	}
	return false
}
