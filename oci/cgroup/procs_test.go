package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPIDsAreThoseOfNestedGroupsTooInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		inner := tr.nested(t, "inner")
		innermost := inner.nested(t, "innermost")
		tr.nested(t, "empty")
		// Groups are visited from outside to inside: not in the order of numbers.
		var want []int
		for _, where := range []tree{innermost, inner, tr} {
			want = append(want, startIn(t, "sleep", true, where.all()...).Process.Pid)
		}
		g := group(want[2])
		slices.Sort(want)
		if got, err := g.PIDs(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	})
}

// The kernel leaves it out, which is why the shim must list the init process
// of a container itself until Delete: containerd takes a task without processes
// for one that it has lost.
func TestZombieIsNotListed(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		p.Process.Signal(syscall.SIGKILL)
		eventually(t, "a group without processes", func() bool {
			pids, err := g.PIDs()
			return err == nil && len(pids) == 0
		})
		if err := p.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("it is reaped already: %v", err)
		}
	})
}

func TestPIDsBearGroupsThatComeAndGo(t *testing.T) {
	onEach(t, func(t *testing.T, tr tree, group func(pid int) *Group) {
		p := startIn(t, "sleep", true, tr.all()...)
		g := group(p.Process.Pid)
		var dir string
		for _, d := range []string{"", "pids"} {
			if tr.dirs[d] != "" {
				dir = tr.dirs[d]
			}
		}
		stop := make(chan struct{})
		var all sync.WaitGroup
		for worker := range 2 {
			all.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					d := filepath.Join(dir, fmt.Sprintf("%d-%d", worker, i%3))
					unix.Mkdir(d, 0o755)
					unix.Mkdir(filepath.Join(d, "inner"), 0o755)
					unix.Rmdir(filepath.Join(d, "inner"))
					unix.Rmdir(d)
				}
			})
		}
		for range 300 {
			if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
				t.Errorf("%v, %v", pids, err)
				break
			}
		}
		close(stop)
		all.Wait()
	})
}

// A process whose threads are spread over threaded groups is listed by the
// group above that is their root; theirs refuse to be read.
func TestThreadedGroupsAreNoError(t *testing.T) {
	tr, s := newV2(t)
	p := startIn(t, "sleep", true, tr.all()...)
	inner := tr.nested(t, "threaded")
	inner.set(t, "", "cgroup.type", "threaded")
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	inner.set(t, "", "cgroup.threads", tasks[len(tasks)-1].Name())
	g := restore(t, s)
	if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Errorf("%v, %v", pids, err)
	}
	if err := g.Kill(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	p.mustEndBy(t, syscall.SIGTERM)
}

func TestListOfProcesses(t *testing.T) {
	for _, c := range []struct {
		text string
		want []int
		ok   bool
	}{
		{"", nil, true},
		{"1\n", []int{1}, true},
		{"12\n7\n12\n", []int{12, 7, 12}, true},
		{"12\n7", []int{12, 7}, true},
		{"0\n4\n0\n", []int{4}, true}, // of another PID namespace
		{"\n", nil, false},
		{"4\nfive\n", []int{4}, false},
		{"4 5\n", nil, false},
		{"99999999999999999999\n", nil, false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := appendPIDs(nil, dir)
		if !slices.Equal(got, c.want) || (err == nil) != c.ok {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
}

func TestACgroupBearsTheIdAsAName(t *testing.T) {
	for lines, want := range map[string]bool{
		"0::/k8s/abc\n":                           true,
		"0::/system.slice/docker-abc.scope\n":     true,
		"0::/system.slice/abc.scope/init\n":       true,
		"5:cpu,cpuacct:/x\n1:name=s:/default/abc": true,
		"0::/abc/nested/deeper":                   true,
		"0::/k8s/abcd\n":                          false,
		"0::/k8s/x-abc\n":                         false,
		"0::/\n":                                  false,
		"1:abc:/\n":                               false,
		"":                                        false,
	} {
		if got := Bears(lines, "abc"); got != want {
			t.Errorf("%q: %v", lines, got)
		}
	}
}
