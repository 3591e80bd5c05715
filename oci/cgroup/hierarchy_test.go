package cgroup

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestMountsOfV1(t *testing.T) {
	const (
		memory = "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
		cpu    = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 master:1 - cgroup cgroup rw,cpu,cpuacct\n"
		named  = "32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd\n"
		part   = "33 25 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
		v2     = "34 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		disk   = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
	)
	for _, c := range []struct {
		name, mountinfo string
		root            string
		tops            map[string]string // those that matter
	}{
		{"nothing", "", "", nil},
		{"one controller", memory, "/sys/fs/cgroup", map[string]string{"memory": "/"}},
		{"two in one hierarchy", disk + cpu, "/sys/fs/cgroup", map[string]string{"cpu": "/", "cpuacct": "/"}},
		{"one with a name", named, "/sys/fs/cgroup", map[string]string{"name=systemd": "/"}},
		{"a part of the tree", part, "/sys/fs/cgroup", map[string]string{"memory": "/docker/abc"}},
		{"the first counts", part + memory, "/sys/fs/cgroup", map[string]string{"memory": "/docker/abc"}},
		{"v2 alone", v2 + disk, "", nil},
		{"no line end", "30 25 0:26 / /cg/memory rw - cgroup none rw,memory", "/cg", map[string]string{"memory": "/"}},
		{"no separator", "30 25 0:26 / /sys/fs/cgroup/memory rw,nosuid cgroup cgroup rw,memory\n", "", nil},
		{"too few fields before it", "30 25 0:26 / - cgroup cgroup rw,memory\n", "", nil},
		{"too few fields after it", "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup\n", "", nil},
		{"rubbish, then a mount", "\x00\xff - \n - - -\n" + memory, "/sys/fs/cgroup", map[string]string{"memory": "/"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := parseV1Mounts(strings.NewReader(c.mountinfo))
			if err != nil {
				t.Fatal(err)
			}
			if m.root != c.root {
				t.Errorf("root %q, want %q", m.root, c.root)
			}
			for _, option := range []string{"rw", "xattr", "release_agent=/lib/agent"} {
				delete(m.tops, option)
			}
			if !maps.Equal(m.tops, c.tops) && len(m.tops)+len(c.tops) != 0 {
				t.Errorf("tops %v, want %v", m.tops, c.tops)
			}
		})
	}
}

func TestPathBelowAMount(t *testing.T) {
	for _, c := range []struct{ top, path, want string }{
		{"/", "/", "/"},
		{"/", "/a/b", "/a/b"},
		{"/", "a", "/a"},
		{"/docker/abc", "/docker/abc", "/"},
		{"/docker/abc", "/docker/abc/x/y", "/x/y"},
		{"/docker/abc", "/docker/abcd", "/docker/abcd"}, // not below it
		{"/docker/abc", "/docker", "/docker"},
		{"/docker/abc", "/", "/"},
		{"/docker/abc", "/..x", "/..x"},
		{"/a", "/a/..b", "/..b"},
		{"/", "/../..", "/"}, // above our cgroup namespace
		{"", "/a", "/a"},
	} {
		if got := belowTop(c.top, c.path); got != c.want {
			t.Errorf("%q below %q: %q, want %q", c.path, c.top, got, c.want)
		}
	}
}

func TestPathsOfV2(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"/", "/"},
		{"/system.slice/a.scope", "/system.slice/a.scope"},
		{"/a (deleted)", "/a"},
		{"a", "/a"},
		{"/../../etc", "/etc"},
	} {
		s, err := stateV2("/cg", c.path)
		if err != nil || s.Mode != V2 || s.Root != "/cg" || s.Paths[""] != c.want {
			t.Errorf("%q: %+v, %v", c.path, s, err)
		}
	}
	if _, err := stateV2("/cg", ""); !errdefs.IsNotFound(err) {
		t.Errorf("a process outside of the unified hierarchy: %v", err)
	}
}

// A hierarchy that is not mounted, or in which the group is not, has no part
// in it; without any there is nothing that could be asked.
func TestPathsOfV1(t *testing.T) {
	tr := newV1(t)
	own := "/" + filepath.Base(tr.dirs["memory"])
	s, err := stateV1(map[string]string{
		"memory": own, "pids": own, "name=systemd": own, "cpu": own + "-not-there", "no-such": own,
	}, own+"-not-there")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"memory": own, "pids": own}
	if tr.dirs["systemd"] != "" {
		want["systemd"] = own
	}
	if s.Mode != V1 || s.Root != tr.root || !maps.Equal(s.Paths, want) {
		t.Errorf("%+v, want paths %v", s, want)
	}
	for _, none := range []map[string]string{nil, {"no-such": "/"}, {"memory": own + "-not-there"}} {
		if s, err := stateV1(none, ""); !errdefs.IsNotFound(err) {
			t.Errorf("%v: %+v, %v", none, s, err)
		}
	}
}

// Whoever asks tells the process that has ended from the one that cannot be.
func TestLoadTellsWhyItCannot(t *testing.T) {
	ended := exec.Command("/bin/true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pid int
		is  func(error) bool
	}{
		{0, errdefs.IsInvalidArgument},
		{-1, errdefs.IsInvalidArgument},
		{ended.Process.Pid, errdefs.IsNotFound},
		{1 << 30, errdefs.IsNotFound}, // more than there can be
	} {
		if g, err := Load(c.pid); g != nil || !c.is(err) {
			t.Errorf("pid %d: %v, %v", c.pid, g, err)
		}
	}
}

func TestLoadFindsTheGroupOnEveryHierarchy(t *testing.T) {
	tr := newV1(t)
	p := startIn(t, "sleep", true, tr.all()...)
	s := load(t, p.Process.Pid).State()
	own := "/" + filepath.Base(tr.dirs["memory"])
	delete(s.Paths, hybrid)
	if s.Mode != V1 || s.Root != tr.root || len(s.Paths) != len(tr.dirs) {
		t.Errorf("%+v, want one path for each of %v", s, tr.dirs)
	}
	for controller, path := range s.Paths {
		if path != own {
			t.Errorf("%s: %s, want %s", controller, path, own)
		}
	}
}

func TestRestoreRefusesWhatItCannotKnow(t *testing.T) {
	for name, s := range map[string]State{
		"no mode":         {Root: "/sys/fs/cgroup"},
		"another mode":    {Mode: "v3", Root: "/sys/fs/cgroup"},
		"a bad v2 path":   {Mode: V2, Root: "/sys/fs/cgroup", Paths: map[string]string{"": "relative"}},
		"a bad v1 sample": {Mode: V1, Root: "/sys/fs/cgroup", Paths: map[string]string{"pids": "/gone"}, Sample: []byte("\xff\xff")},
		"a bad v2 sample": {Mode: V2, Root: "/sys/fs/cgroup", Paths: map[string]string{"": "/gone"}, Sample: []byte("\xff\xff")},
	} {
		if g, err := Restore(s); g != nil || err == nil {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
}

// systemd makes a scope with the controllers that it was asked for; statistics
// and OOM events need the others too.
func TestEnableControllers(t *testing.T) {
	tr := newGroup(t)
	if !tr.onV2() {
		p := startIn(t, "sleep", true, tr.all()...)
		if err := load(t, p.Process.Pid).EnableControllers(); err != nil {
			t.Errorf("on V1: %v", err)
		}
		_, s := newV2(t)
		if err := restore(t, s).EnableControllers(); err != nil {
			t.Errorf("on V2 without controllers: %v", err)
		}
		return
	}
	inner := tr.nested(t, "inner")
	p := prepareIn(t, "eat", inner.all()...)
	g := load(t, p.Process.Pid)
	if err := g.WatchOOM(func() {}); !errdefs.IsNotImplemented(err) {
		t.Fatalf("a watch without the controller: %v", err)
	}
	for range 2 {
		if err := g.EnableControllers(); err != nil {
			t.Fatal(err)
		}
	}
	inner.set(t, "", "memory.max", oomLimit)
	p.begin(t)
	p.mustEndBy(t, syscall.SIGKILL)
	mustOOM(t, g, true)
	tr.remove(t)
	if err := g.EnableControllers(); err != nil {
		t.Errorf("of a group that is gone: %v", err)
	}
}

// Which hierarchy is asked for processes must be one that the group is in.
func TestHierarchyThatIsAskedForProcesses(t *testing.T) {
	for _, c := range []struct {
		paths map[string]string
		want  string
	}{
		{map[string]string{"pids": "/c", "freezer": "/c", "memory": "/c"}, "pids"},
		{map[string]string{"pids": "/", "freezer": "/c", "memory": "/c"}, "freezer"},
		{map[string]string{"memory": "/c", "rdma": "/c"}, "memory"},
		{map[string]string{"rdma": "/c", "pids": "/"}, "rdma"},
		{map[string]string{"pids": "/", "memory": "/"}, "pids"},
		{nil, "pids"},
	} {
		g := &Group{mode: V1, paths: c.paths}
		if got := g.procsController(); got != c.want {
			t.Errorf("%v: %s, want %s", c.paths, got, c.want)
		}
	}
	if got := (&Group{mode: V2, paths: map[string]string{"": "/c"}}).procsController(); got != "" {
		t.Errorf("V2: %s", got)
	}
}

// OCI runtimes make a group in the v2 hierarchy of a hybrid host too, which
// would be left when theirs is removed.
func TestHybridMachineIsV1AndHasAPathInV2(t *testing.T) {
	tr := newV1(t)
	v2, s := newV2(t)
	if filepath.Dir(v2.dirs[""]) != filepath.Join(tr.root, hybrid) {
		t.Skip("the v2 hierarchy is not beside those of V1")
	}
	p := startIn(t, "sleep", true, append(tr.all(), v2.all()...)...)
	got := load(t, p.Process.Pid).State()
	if got.Mode != V1 || got.Paths[hybrid] != s.Paths[""] {
		t.Errorf("%+v, want %s", got, s.Paths[""])
	}
}

func TestRemoveRemovesEveryHierarchyAndNestedGroups(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		inner := tr.nested(t, "inner")
		inner.nested(t, "innermost")
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		if err := g.Remove(0); !errors.Is(err, unix.EBUSY) {
			t.Errorf("a group with a process: %v", err)
		}
		p.Process.Kill()
		p.mustEnd(t)
		for range 2 {
			if err := g.Remove(20 * time.Second); err != nil {
				t.Error(err)
			}
		}
		for _, dir := range tr.all() {
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is left: %v", dir, err)
			}
		}
	})
}
