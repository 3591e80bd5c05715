package cgroup

// Tests run on the machine's own hierarchies, in groups that they make and
// remove. Processes in them are this test binary again, doing what
// childJobs says.

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

const jobEnv = "CGROUP_TEST_JOB"

func TestMain(m *testing.M) {
	if job := os.Getenv(jobEnv); job != "" {
		name, arg, _ := strings.Cut(job, ":")
		childJobs[name](arg)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childJobs are what a process in a test's cgroup can do. Each begins when a
// line comes in on stdin, after the test has moved it, and says "ready" on
// stdout when it has done what it is for.
var childJobs = map[string]func(arg string){
	"sleep": func(string) { ready(); select {} },
	"spin": func(arg string) {
		d, _ := time.ParseDuration(arg)
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
		ready()
		select {}
	},
	"use": func(arg string) {
		n, _ := strconv.Atoi(arg)
		hold = touch(n)
		ready()
		select {}
	},
	// eat takes memory until it is killed.
	"eat": func(string) { eat() },
	// parent has a child that eats, survives it, tells so, and goes on.
	"parent": func(arg string) {
		n, _ := strconv.Atoi(arg)
		for range n {
			c := exec.Command("/proc/self/exe")
			c.Env = append(os.Environ(), jobEnv+"=eat")
			_ = c.Run()
		}
		ready()
		select {}
	},
	// stubborn ignores what can be ignored.
	"stubborn": func(string) {
		for s := syscall.Signal(1); s < 32; s++ {
			if s != syscall.SIGKILL && s != syscall.SIGSTOP {
				signal.Ignore(s)
			}
		}
		ready()
		select {}
	},
	// bomb forks as fast as it can, each child too.
	"bomb": func(string) {
		ready()
		forkForEver()
	},
}

var hold []byte

func touch(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	return b
}

func eat() {
	for {
		hold = append(hold, touch(1<<20)...)
	}
}

func ready() { fmt.Println("ready") }

// forkForEver starts copies of itself and never stops.
func forkForEver() {
	for {
		p, err := os.StartProcess("/proc/self/exe", []string{"bomb"}, &os.ProcAttr{
			Env: append(os.Environ(), jobEnv+"=bomb"),
		})
		if err == nil {
			go p.Wait()
		}
	}
}

// child is a process of a test.
type child struct {
	*exec.Cmd
	out  *bufio.Reader
	in   io.WriteCloser
	done chan error
}

// startIn starts a job as a process in the given cgroup directories and waits
// until it says ready, unless the job never does.
func startIn(t testing.TB, job string, wait bool, dirs ...string) *child {
	t.Helper()
	// The shell waits for a line, so that the process is moved before it works.
	c := exec.Command("/bin/sh", "-c", `read line; exec "$0"`, "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Args[3] = self
	c.Env = append(os.Environ(), jobEnv+"="+job, "GOMAXPROCS=1")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &child{Cmd: c, out: bufio.NewReader(out), in: in, done: make(chan error, 1)}
	for _, d := range dirs {
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(c.Process.Pid)), 0); err != nil {
			c.Process.Kill()
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	if wait {
		if line, err := p.out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("job %s: %q, %v", job, line, err)
		}
	}
	go func() { p.done <- c.Wait() }()
	t.Cleanup(func() { c.Process.Kill(); <-p.gone() })
	return p
}

// gone is closed when the process has been reaped.
func (p *child) gone() <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		err := <-p.done
		p.done <- err
		close(ch)
	}()
	return ch
}

func (p *child) mustEnd(t testing.TB) error {
	t.Helper()
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("process %d did not end", p.Process.Pid)
		return nil
	}
}

// tree is a container's cgroup made for a test: one directory in each
// hierarchy.
type tree struct {
	root string
	dirs map[string]string // by controller
}

func (tr tree) all() []string {
	var dirs []string
	for _, d := range tr.dirs {
		dirs = append(dirs, d)
	}
	return dirs
}

func (tr tree) nested(t testing.TB, name string) tree {
	t.Helper()
	n := tree{root: tr.root, dirs: make(map[string]string)}
	for c, d := range tr.dirs {
		n.dirs[c] = filepath.Join(d, name)
		if err := os.Mkdir(n.dirs[c], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (tr tree) set(t testing.TB, controller, file, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(tr.dirs[controller], file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// remove ends what is in the tree and removes it, nested groups first.
func (tr tree) remove(t testing.TB) {
	t.Helper()
	for c, d := range tr.dirs {
		for end := time.Now().Add(20 * time.Second); ; {
			err := removeTree(d)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(end) {
				t.Errorf("remove %s group: %v", c, err)
				break
			}
			killTree(d)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
}

func killTree(dir string) {
	_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
	_ = walk(dir, func(d string) error {
		pids, err := appendPIDs(nil, d)
		for _, pid := range pids {
			if pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return err
	})
}

// newV1 makes a group in the given v1 hierarchies, all that are mounted when
// none is named.
func newV1(t testing.TB, controllers ...string) tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	if cgroups.Mode() == cgroups.Unified {
		t.Skip("this machine has no v1 hierarchy")
	}
	mounts, err := readV1Mounts()
	if err != nil {
		t.Skipf("this machine has no v1 hierarchy: %v", err)
	}
	tr := tree{root: mounts.root, dirs: make(map[string]string)}
	t.Cleanup(func() { tr.remove(t) })
	name := fmt.Sprintf("cleat-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	own, _, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for c := range own {
		dir := strings.TrimPrefix(c, "name=")
		if len(controllers) > 0 && !slices.Contains(controllers, dir) {
			continue
		}
		path := filepath.Join(mounts.root, dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		tr.dirs[dir] = path
	}
	if d, ok := tr.dirs["cpuset"]; ok {
		for _, f := range []string{"cpuset.mems", "cpuset.cpus"} {
			b, err := os.ReadFile(filepath.Join(mounts.root, "cpuset", f))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d, f), b, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range controllers {
		if tr.dirs[c] == "" {
			t.Skipf("this machine has no v1 hierarchy for %s", c)
		}
	}
	return tr
}

func load(t testing.TB, pid int) *Group {
	t.Helper()
	g, err := Load(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
