package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// groups are the hierarchies that a kill goes through, with what is needed to
// freeze a group in each.
var groups = map[string]func(t *testing.T) (tree, func(pid int) *Group){
	"v1": func(t *testing.T) (tree, func(pid int) *Group) {
		return newV1(t), func(pid int) *Group { return load(t, pid) }
	},
	"v2": func(t *testing.T) (tree, func(pid int) *Group) {
		tr, s := newV2(t)
		return tr, func(int) *Group { return restore(t, s) }
	},
}

func onEach(t *testing.T, story func(t *testing.T, tr tree, group func(pid int) *Group)) {
	for name, make := range groups {
		t.Run(name, func(t *testing.T) {
			tr, group := make(t)
			story(t, tr, group)
		})
	}
}

// setFrozen freezes a group, not those nested in it on their own.
func (tr tree) setFrozen(t testing.TB, frozen bool) {
	t.Helper()
	if _, ok := tr.dirs["freezer"]; ok {
		tr.set(t, "freezer", "freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}[frozen])
		eventually(t, "the freezer's state", func() bool { return tr.frozen("freezer", "freezer.state", "FROZEN") == frozen })
		return
	}
	tr.set(t, "", "cgroup.freeze", map[bool]string{true: "1", false: "0"}[frozen])
	eventually(t, "the freezer's state", func() bool { return tr.frozen("", "cgroup.events", "frozen 1") == frozen })
}

func (tr tree) frozen(controller, file, word string) bool {
	b, _ := os.ReadFile(filepath.Join(tr.dirs[controller], file))
	return strings.Contains(string(b), word)
}

func TestKillEndsEveryProcessOfNestedGroups(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		inner := tr.nested(t, "inner")
		innermost := inner.nested(t, "innermost")
		var all []*child
		for _, where := range []tree{tr, inner, inner, innermost} {
			all = append(all, startIn(t, "stubborn", true, where.all()...))
		}
		stranger := startIn(t, "sleep", true)
		if err := group(all[0].Process.Pid).Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			p.mustEndBy(t, syscall.SIGKILL)
		}
		if !stranger.running() {
			t.Error("a process outside of the group was killed")
		}
	})
}

// Process by process is what is left where there is no cgroup.kill.
func TestKillWithoutCgroupKill(t *testing.T) {
	tr, s := newV2(t)
	inner := tr.nested(t, "inner")
	p, q := startIn(t, "stubborn", true, tr.all()...), startIn(t, "stubborn", true, inner.all()...)
	inner.setFrozen(t, true)
	if err := restore(t, s).killEach(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.mustEndBy(t, syscall.SIGKILL)
	q.mustEndBy(t, syscall.SIGKILL)
}

func TestOtherSignalsReachEachProcessOnce(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		inner := tr.nested(t, "inner")
		p, q := startIn(t, "count:10", true, tr.all()...), startIn(t, "count:10", true, inner.all()...)
		stubborn := startIn(t, "stubborn", true, tr.all()...)
		g := group(p.Process.Pid)
		if err := g.Kill(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		p.awaitReady(t)
		q.awaitReady(t)
		if err := g.Kill(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for _, p := range []*child{p, q} {
			if state := p.mustEnd(t); state.ExitCode() != 11 {
				t.Errorf("%v; want 10 and one signal", state)
			}
		}
		if !stubborn.running() {
			t.Error("a process that ignores SIGTERM did not survive it")
		}
	})
}

func TestKillTellsOfASignalThatDoesNotExist(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		if err := g.Kill(65); err == nil || !strings.Contains(err.Error(), unix.EINVAL.Error()) {
			t.Errorf("signal 65: %v", err)
		}
		if err := g.Kill(0); err != nil {
			t.Errorf("signal 0: %v", err)
		}
		if !p.running() {
			t.Error("the process did not survive signal 0")
		}
	})
}

// On V1 a frozen process dies only when it is thawed; the client of a paused
// container's kill waited for ever.
func TestKillEndsAFrozenGroup(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		inner := tr.nested(t, "inner")
		p, q := startIn(t, "sleep", true, tr.all()...), startIn(t, "sleep", true, inner.all()...)
		g := group(p.Process.Pid)
		inner.setFrozen(t, true)
		tr.setFrozen(t, true)
		if err := g.Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.mustEndBy(t, syscall.SIGKILL)
		q.mustEndBy(t, syscall.SIGKILL)
	})
}

func TestOtherSignalsWaitForTheThaw(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "count:10", true, tr.all()...)
		g := group(p.Process.Pid)
		tr.setFrozen(t, true)
		if err := g.Kill(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if !p.running() {
			t.Fatal("a signal other than SIGKILL has thawed the group")
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		if state := p.mustEnd(t); state.ExitCode() != 10 {
			t.Errorf("%v", state)
		}
		if err := g.Thaw(); err != nil {
			t.Errorf("thaw of a group that is not frozen: %v", err)
		}
		tr.remove(t)
		if err := g.Thaw(); err != nil {
			t.Errorf("thaw of a group that is gone: %v", err)
		}
	})
}

// Passes over the list of processes never catch up with one that forks all the
// time, and the container could not be stopped.
func TestKillEndsAForkBomb(t *testing.T) {
	tr := newGroup(t)
	controller := "pids"
	if tr.onV2() {
		controller = ""
	}
	tr.set(t, controller, "pids.max", "300")
	bomb := startIn(t, "bomb", true, tr.all()...)
	g := load(t, bomb.Process.Pid)
	eventually(t, "the bomb to go off", func() bool {
		pids, err := g.PIDs()
		return err == nil && len(pids) > 10
	})
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	bomb.mustEndBy(t, syscall.SIGKILL)
	eventually(t, "the end of all", func() bool {
		pids, err := g.PIDs()
		return err == nil && !slices.ContainsFunc(pids, func(pid int) bool {
			return (&child{Cmd: &exec.Cmd{Process: &os.Process{Pid: pid}}}).running()
		})
	})
	tr.setFrozen(t, false) // that is, it is not left frozen
}

// A container made without a cgroup of its own shares the shim's: the signal
// would end the shim and all its neighbours.
func TestKillRefusesAGroupThatWeAreIn(t *testing.T) {
	g := load(t, os.Getpid())
	if err := g.Kill(0); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill of the group of this very process: %v", err)
	}
}

func TestFreezeRefusesAGroupThatWeAreIn(t *testing.T) {
	tr, s := newV2(t)
	g := restore(t, s)
	_, back, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	join(t, tr.dirs[""], os.Getpid())
	defer join(t, filepath.Join(tr.root, back), os.Getpid())
	if !g.holdsUs() {
		t.Error("not noticed")
	}
	if err := g.Kill(0); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("kill of the group of this very process: %v", err)
	}
	g.freeze() // would be the end of this test
}

// Between reading the list and opening a pidfd a number may have gone to a
// stranger, or to a thread of one.
func TestSignalDoesNotReachANumberThatIsNotListedAnyMore(t *testing.T) {
	tr := newGroup(t)
	stranger := startIn(t, "sleep", true)
	task, err := os.ReadDir("/proc/self/task")
	if err != nil || len(task) < 2 {
		t.Fatalf("this process has %d threads, %v", len(task), err)
	}
	numbers := []int{stranger.Process.Pid}
	for _, thread := range task {
		if tid := atoi(t, thread.Name()); tid != os.Getpid() {
			numbers = append(numbers, tid)
		}
	}
	fresh, err := signalBatch(tr.all()[0], numbers, syscall.SIGKILL, map[int]struct{}{})
	if err != nil || fresh != 0 {
		t.Errorf("%d signalled, %v", fresh, err)
	}
	if !stranger.running() {
		t.Error("a stranger was killed")
	}
}

func TestKillOfAGroupThatIsGoneOrEmptyIsNoError(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		p.Process.Kill()
		p.mustEnd(t)
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			if err := g.Kill(signal); err != nil {
				t.Errorf("empty group: %v", err)
			}
		}
		tr.remove(t)
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			if err := g.Kill(signal); err != nil {
				t.Errorf("group that is gone: %v", err)
			}
		}
	})
}
