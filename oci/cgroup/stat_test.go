package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// figures are what samples of both kinds tell.
type figures struct{ memory, anonymous, pids, cpu uint64 }

func figuresOf(t testing.TB, sample *Sample) figures {
	t.Helper()
	switch m := decode(t, sample).(type) {
	case *stats1.Metrics:
		return figures{m.Memory.GetUsage().GetUsage(), m.Memory.GetRSS(), m.Pids.GetCurrent(), m.CPU.GetUsage().GetTotal()}
	case *stats2.Metrics:
		return figures{m.Memory.GetUsage(), m.Memory.GetAnon(), m.Pids.GetCurrent(), m.CPU.GetUsageUsec() * 1000}
	}
	return figures{}
}

// decode makes of a sample what containerd's clients make of it.
func decode(t testing.TB, s *Sample) proto.Message {
	t.Helper()
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(s.Message))
	if err != nil {
		t.Fatal(err)
	}
	m := found.New().Interface()
	if err := proto.Unmarshal(s.Encoded, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLoadStatPIDsKill(t *testing.T) {
	tr := newGroup(t)
	p := startIn(t, "use:33554432", true, tr.all()...)
	g := load(t, p.Process.Pid)
	s, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if f := figuresOf(t, s); f.memory < 32<<20 || f.anonymous < 32<<20 || f.pids == 0 || f.cpu == 0 {
		t.Errorf("%+v", f)
	}
	pids, err := g.PIDs()
	if err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Fatalf("pids %v, %v", pids, err)
	}
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.mustEnd(t)
	tr.remove(t)
	if pids, err := g.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("pids of a vanished group: %v, %v", pids, err)
	}
	if again, err := g.Stat(); err != nil || again != s {
		t.Errorf("last sample: %v, %v", again, err)
	}
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Errorf("kill of a vanished group: %v", err)
	}
	if _, err := Load(p.Process.Pid); !errdefs.IsNotFound(err) {
		t.Errorf("load of a process that ended: %v", err)
	}
}

func TestStatFollowsWhatTheGroupUses(t *testing.T) {
	tr := newGroup(t)
	p := prepareIn(t, "spin:50ms", tr.all()...)
	g := load(t, p.Process.Pid)
	before, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p.begin(t)
	p.awaitReady(t)
	after, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if used := figuresOf(t, after).cpu - figuresOf(t, before).cpu; used < 40e6 {
		t.Errorf("%d ns of processor time counted for a process that used 50 ms", used)
	}
}

// The runtime removes the hierarchies one after the other. A sample of what is
// left half-way would be taken for what the container used in the end.
func TestStatOfAGroupThatVanishesIsTheLastWholeSample(t *testing.T) {
	counted := []string{"memory", "pids", "cpuacct", "cpu", "blkio"}
	for _, first := range counted {
		t.Run(first+" first", func(t *testing.T) {
			tr := newV1(t)
			p := startIn(t, "sleep", true, tr.all()...)
			g := load(t, p.Process.Pid)
			whole, err := g.Stat()
			if err != nil {
				t.Fatal(err)
			}
			p.Process.Kill()
			p.mustEnd(t)
			order := append([]string{first}, slices.DeleteFunc(slices.Clone(counted), func(c string) bool { return c == first })...)
			for _, c := range order {
				if tr.dirs[c] == "" {
					continue
				}
				eventually(t, "the removal of "+c, func() bool { return unix.Rmdir(tr.dirs[c]) == nil })
				if s, err := g.Stat(); err != nil || s != whole {
					t.Errorf("without %s: %+v, %v", c, s, err)
				}
			}
		})
	}
}

// The same, read while it goes on: each sample has everything or is that of
// before.
func TestStatWhileTheGroupVanishesIsWhole(t *testing.T) {
	for range 5 {
		tr := newV1(t)
		p := startIn(t, "sleep", true, tr.all()...)
		g := load(t, p.Process.Pid)
		if _, err := g.Stat(); err != nil {
			t.Fatal(err)
		}
		p.Process.Kill()
		p.mustEnd(t)
		removed := make(chan struct{})
		go func() { tr.remove(t); close(removed) }()
		for more := true; more; {
			select {
			case <-removed:
				more = false
			default:
			}
			s, err := g.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if m := decode(t, s).(*stats1.Metrics); m.Memory.GetUsage().GetLimit() == 0 || m.MemoryOomControl == nil || m.Pids == nil || m.CPU.GetUsage().GetTotal() == 0 {
				t.Fatalf("half a sample: %+v", m)
			}
		}
	}
}

// On V2 a sample is of one directory. Nothing stays open of one that goes while it
// is read.
func TestStatWhileAGroupOfV2VanishesIsWhole(t *testing.T) {
	top, s := newV2(t)
	if controllers, err := controllers(top.dirs[""]); err == nil && slices.Contains(controllers, "memory") {
		top.enable(t, top.dirs[""])
	}
	s.Paths[""] += "/inner"
	stat := func(g *Group) bool {
		sample, err := g.Stat()
		if errdefs.IsNotFound(err) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		m := decode(t, sample).(*stats2.Metrics)
		counted := m.Memory.GetUsageLimit() != 0
		if m.CPU.GetUsageUsec() == 0 || counted != (m.MemoryEvents != nil) || counted != (m.Pids.GetLimit() != 0) {
			t.Fatalf("half a sample: %v", m)
		}
		return true
	}
	files := -1
	for range 10 {
		inner := top.nested(t, "inner")
		p := startIn(t, "spin:5ms", true, inner.all()...)
		read, unread := restore(t, s), restore(t, s)
		if !stat(read) {
			t.Fatal("it is gone already")
		}
		p.Process.Kill()
		p.mustEnd(t)
		gone := make(chan struct{})
		go func() { inner.remove(t); close(gone) }()
		for there := true; there; {
			select {
			case <-gone:
				there = false
			default:
			}
			// None was kept, so that each is of now or there is none.
			stat(unread)
			unread.mu.Lock()
			unread.sample = nil
			unread.mu.Unlock()
			if !stat(read) {
				t.Fatal("the last sample is lost")
			}
		}
		if stat(unread) {
			t.Error("there is a sample of a group that is gone")
		}
		read.Close()
		unread.Close()
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		if files < 0 {
			files = len(open)
		}
		// Those of processes that have ended are closed by and by.
		if len(open) > files+3*10 {
			t.Fatalf("%d files are open, after the first %d", len(open), files)
		}
	}
}

// Groups have the names that users give to containers' parents.
func TestGroupsOfAnyNameAreRead(t *testing.T) {
	tr := newGroup(t)
	for _, name := range []string{"a:b", "with  spaces ", "tab\t", `back\slash\040`, "é😀", "%s%d", "*?[a", "...", "-", strings.Repeat("n", 255)} {
		inner := tr.nested(t, name)
		p := startIn(t, "spin:5ms", true, inner.all()...)
		g := load(t, p.Process.Pid)
		s, err := g.Stat()
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if f := figuresOf(t, s); f.cpu == 0 {
			t.Errorf("%q: %+v", name, f)
		}
		if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
			t.Errorf("%q: pids %v, %v", name, pids, err)
		}
		if again, err := restore(t, g.State()).Stat(); err != nil || again.Message != s.Message {
			t.Errorf("%q: when it is restored: %v, %v", name, again, err)
		}
		p.Process.Kill()
		p.mustEnd(t)
		inner.remove(t)
	}
}

func TestStatOfAGroupThatIsGoneAndWasNeverRead(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		p.Process.Kill()
		p.mustEnd(t)
		tr.remove(t)
		if s, err := g.Stat(); s != nil || !errdefs.IsNotFound(err) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// A host without a controller is no error: the rest counts.
func TestStatWithoutSomeControllers(t *testing.T) {
	t.Run("v1", func(t *testing.T) {
		tr := newV1(t, "pids", "cpuacct")
		startIn(t, "spin:10ms", true, tr.all()...)
		own := "/" + filepath.Base(tr.dirs["pids"])
		g := restore(t, State{Mode: V1, Root: tr.root, Paths: map[string]string{"pids": own, "cpuacct": own}})
		s, err := g.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if f := figuresOf(t, s); f.memory != 0 || f.pids == 0 || f.cpu == 0 {
			t.Errorf("%+v", f)
		}
	})
	t.Run("v2", func(t *testing.T) {
		tr, state := newV2(t)
		inner := tr.nested(t, "without")
		state.Paths[""] += "/without"
		startIn(t, "spin:10ms", true, inner.all()...)
		s, err := restore(t, state).Stat()
		if err != nil {
			t.Fatal(err)
		}
		if f := figuresOf(t, s); f.memory != 0 || f.cpu == 0 {
			t.Errorf("%+v", f)
		}
	})
}

func TestStatOnV2IsThatOfItsFiles(t *testing.T) {
	g := fakeV2(t, map[string]string{
		"cpu.stat":       "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\n",
		"memory.current": "1048576\n", "memory.max": "max\n", "memory.stat": "anon 4096\nfile 8192\n",
		"memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
		"pids.current":  "7\n", "pids.max": "max\n",
	})
	s, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m := decode(t, s).(*stats2.Metrics)
	if m.CPU.UsageUsec != 5000000 || m.Memory.Usage != 1048576 || m.Memory.Anon != 4096 || m.MemoryEvents.OomKill != 4 || m.Pids.Current != 7 {
		t.Errorf("%+v", m)
	}
	if err := os.RemoveAll(g.dir("")); err != nil {
		t.Fatal(err)
	}
	if again, err := g.Stat(); err != nil || again != s {
		t.Errorf("when it is gone: %v, %v", again, err)
	}
}

// What an upgrade hands over: the group goes on as if nothing had happened,
// also one that is gone by then.
func TestRestoreGoesOnWhereTheOldOneStopped(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "spin:10ms", true, tr.all()...)
		old := group(p.Process.Pid)
		sample, err := old.Stat()
		if err != nil {
			t.Fatal(err)
		}
		state := old.State()
		old.Close()
		handedOver, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		var received State
		if err := json.Unmarshal(handedOver, &received); err != nil {
			t.Fatal(err)
		}
		g := restore(t, received)
		if again, err := json.Marshal(g.State()); err != nil || string(again) != string(handedOver) {
			t.Errorf("the state of the restored group is %s, %v; it was made from %s", again, err, handedOver)
		}
		if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
			t.Errorf("pids: %v, %v", pids, err)
		}
		if _, err := g.Stat(); err != nil {
			t.Errorf("stat: %v", err)
		}
		if err := g.Kill(syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		p.mustEndBy(t, syscall.SIGKILL)
		tr.remove(t)
		gone := restore(t, received)
		if s, err := gone.Stat(); err != nil || !reflect.DeepEqual(s, sample) {
			t.Errorf("last sample of a group that is gone: %v, %v", s, err)
		}
		if pids, err := gone.PIDs(); err != nil || len(pids) != 0 {
			t.Errorf("pids of a group that is gone: %v, %v", pids, err)
		}
		if err := gone.Kill(syscall.SIGKILL); err != nil {
			t.Errorf("kill of a group that is gone: %v", err)
		}
	})
}
