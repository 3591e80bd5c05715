package bootstrap

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"golang.org/x/sys/unix"
)

func TestV1HierarchiesAreFoundInMountinfo(t *testing.T) {
	got := v1Hierarchies(`22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:6 master:1 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /part /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 30 0:29
`)
	if want := []string{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// makeCgroup makes a cgroup in every hierarchy, or skips where it may not.
func makeCgroup(t *testing.T, path string) (dirs []string) {
	t.Helper()
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range hierarchies {
		dir := filepath.Join(mount, path)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Logf("%v", err)
			continue
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("the cgroup is not empty: %v", err)
			}
		})
		if filepath.Base(mount) == "cpuset" { // takes no process before it has these
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, _ := os.ReadFile(filepath.Join(mount, file))
				os.WriteFile(filepath.Join(dir, file), value, 0)
			}
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		t.Skip("no cgroup can be made here")
	}
	return dirs
}

func TestTheDaemonJoinsShimCgroup(t *testing.T) {
	n := newNode(t)
	path := "/cleat-test-" + filepath.Base(filepath.Dir(n.root))
	dirs := makeCgroup(t, path)
	t.Cleanup(func() { // before the cgroups go
		for _, pid := range n.processes() {
			killWait(t, pid)
		}
	})
	n.bundle("c1", nil)
	p := n.params("c1")
	if err := p.AddExtension(&runcoptions.Options{ShimCgroup: path}); err != nil {
		t.Fatal(err)
	}
	pid := n.leader(n.mustStart("c1", p).Address)
	for _, dir := range dirs {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Fields(string(procs)); len(got) != 1 || got[0] != strconv.Itoa(pid) {
			t.Errorf("%s holds %q, the daemon is %d", dir, got, pid)
		}
	}
}

func TestAMissingShimCgroupIsAnError(t *testing.T) {
	n := newNode(t)
	n.bundle("c1", nil)
	p := n.params("c1")
	if err := p.AddExtension(&runcoptions.Options{ShimCgroup: "/no/such/../cgroup"}); err != nil {
		t.Fatal(err)
	}
	n.mustFail("c1", n.marshal(p), "/no/such/../cgroup", "no such cgroup")
}

func TestWithSchedCoreTheDaemonHasACookieOfItsOwn(t *testing.T) {
	n := newNode(t)
	n.bundle("c1", nil)
	n.env = []string{"SCHED_CORE=1"}
	output, status := n.start("c1", n.marshal(n.params("c1")))
	var cookie uint64
	known := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, 0, 0, uintptr(unsafe.Pointer(&cookie))) == nil
	if !known { // no hardware threads, or a kernel without: told, not ignored
		if status != 1 {
			t.Errorf("status %d", status)
		}
		n.oneSentence(output, "SCHED_CORE")
		if pids := n.processes(); len(pids) != 0 {
			t.Errorf("processes %v are left", pids)
		}
		return
	}
	pids := n.processes()
	if status != 0 || len(pids) != 1 {
		t.Fatalf("status %d, daemons %v: %s", status, pids, output)
	}
	var daemons uint64
	if err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(pids[0]), 0, uintptr(unsafe.Pointer(&daemons))); err != nil {
		t.Fatal(err)
	}
	if daemons == 0 || daemons == cookie {
		t.Errorf("the daemon's cookie is %x, ours %x", daemons, cookie)
	}
}
func TestDaemonHasNoHugePagesThatItHasNotAskedFor(t *testing.T) {
	for _, c := range []struct {
		environ []string
		all     bool
		want    string
	}{
		{[]string{"A=b"}, false, ""},
		{[]string{"A=b"}, true, "GODEBUG=disablethp=1"},
		{[]string{"GODEBUG=gctrace=1"}, true, "GODEBUG=gctrace=1,disablethp=1"},
		{[]string{"GODEBUG="}, true, "GODEBUG=disablethp=1"},
		{[]string{"GODEBUG=gctrace=1"}, false, "GODEBUG=gctrace=1"},
	} {
		env := daemonEnv(c.environ, "", "id", c.all)
		got := slices.DeleteFunc(slices.Clone(env), func(v string) bool { return len(v) < 8 || v[:8] != "GODEBUG=" })
		if c.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%q, huge pages for all %v: %q, want %q", c.environ, c.all, got, c.want)
		}
	}
}
