package cgroup

// Tests run on the machine's own hierarchies, in groups that they make and
// remove. Processes in them are this test binary again, doing what
// childJobs says.

import (
	"bytes"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

const jobEnv = "CGROUP_TEST_JOB"

func TestMain(m *testing.M) {
	if job := os.Getenv(jobEnv); job != "" {
		name, arg, _ := strings.Cut(job, ":")
		childJobs[name](arg)
		os.Exit(0)
	}
	// The library tells there of each file that it cannot parse.
	log.L.Logger.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// childJobs are what a process in a test's cgroup can do. Each begins when a
// line comes in on stdin, after the test has moved it, and says "ready" on
// stdout when it has done what it is for.
var childJobs = map[string]func(arg string){
	"sleep": func(string) { sayReady(); sleep() },
	// spin uses as much processor time as arg says.
	"spin": func(arg string) {
		d, _ := time.ParseDuration(arg)
		for used := time.Duration(0); used < d; {
			var r syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &r)
			used = time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
		sayReady()
		sleep()
	},
	"use": func(arg string) {
		n, _ := strconv.Atoi(arg)
		hold = touch(n)
		sayReady()
		sleep()
	},
	// write writes to a disk, if the file is on one.
	"write": func(path string) {
		f, err := os.Create(path)
		if err == nil {
			f.Write(touch(1 << 20))
			f.Sync()
		}
		sayReady()
		sleep()
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
		sayReady()
		sleep()
	},
	// stubborn ignores what can be ignored.
	"stubborn": func(string) {
		for s := syscall.Signal(1); s < 32; s++ {
			if s != syscall.SIGKILL && s != syscall.SIGSTOP {
				signal.Ignore(s)
			}
		}
		sayReady()
		sleep()
	},
	// count says ready again at each SIGUSR1, and ends at SIGTERM with arg plus
	// how many of them there were.
	"count": func(arg string) {
		n, _ := strconv.Atoi(arg)
		signals := make(chan os.Signal, 16)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
		sayReady()
		for s := range signals {
			if s == syscall.SIGTERM {
				os.Exit(n)
			}
			n++
			sayReady()
		}
	},
	// bomb forks as fast as it can, each child too.
	"bomb": func(string) {
		sayReady()
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

// sleep does not let the runtime think that nothing will ever happen again.
func sleep() {
	for {
		time.Sleep(time.Hour)
	}
}

func sayReady() { fmt.Println("ready") }

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
	out   *os.File
	in    io.WriteCloser
	once  sync.Once
	ended chan struct{}
	err   error
}

// startIn starts a job as a process in the given cgroup directories and waits
// until it says ready, unless the job never does.
func startIn(t testing.TB, job string, wait bool, dirs ...string) *child {
	t.Helper()
	p := prepareIn(t, job, dirs...)
	p.begin(t)
	if wait {
		p.awaitReady(t)
	}
	return p
}

// prepareIn starts a process in the given cgroup directories that does its job
// when it is told to begin.
func prepareIn(t testing.TB, job string, dirs ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The shell waits for a line, so that the process is moved before it works.
	c := exec.Command("/bin/sh", "-c", `read line; exec "$0"`, self)
	// A race detector that finds nothing otherwise takes a second to end.
	c.Env = append(os.Environ(), jobEnv+"="+job, "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0")
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
	p := &child{Cmd: c, out: out.(*os.File), in: in, ended: make(chan struct{})}
	// The tree, which is cleaned up after this, thaws what is frozen.
	t.Cleanup(func() { c.Process.Kill(); go p.wait() })
	for _, d := range dirs {
		join(t, d, c.Process.Pid)
	}
	return p
}

func join(t testing.TB, dir string, pid int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
}

func (p *child) begin(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(p.in, "go\n"); err != nil {
		t.Fatal(err)
	}
}

func (p *child) awaitReady(t testing.TB) {
	t.Helper()
	p.out.SetReadDeadline(time.Now().Add(20 * time.Second))
	var line [6]byte
	if _, err := io.ReadFull(p.out, line[:]); err != nil || string(line[:]) != "ready\n" {
		t.Fatalf("the job said %q, %v", line, err)
	}
}

// wait reaps the process, whoever asks first.
func (p *child) wait() {
	p.once.Do(func() {
		p.err = p.Wait()
		close(p.ended)
	})
}

// mustEnd returns how the process ended, of which it is sure that it will.
func (p *child) mustEnd(t testing.TB) *os.ProcessState {
	t.Helper()
	go p.wait()
	select {
	case <-p.ended:
		return p.ProcessState
	case <-time.After(20 * time.Second):
		t.Fatalf("process %d did not end", p.Process.Pid)
		return nil
	}
}

// mustEndBy fails the test unless the signal has ended the process.
func (p *child) mustEndBy(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if status := p.mustEnd(t).Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != signal {
		t.Errorf("process %d ended with %v, want %v", p.Process.Pid, p.ProcessState, signal)
	}
}

// running tells whether the process runs (or sleeps, or stands frozen).
func (p *child) running() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		return false
	}
	state := stat[bytes.LastIndexByte(stat, ')')+2]
	return state != 'Z' && state != 'X'
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
	inheritCPUs(t, tr, n)
	return n
}

// inheritCPUs gives a new V1 cpuset group what it needs to have processes.
func inheritCPUs(t testing.TB, from, to tree) {
	t.Helper()
	if to.dirs["cpuset"] == "" {
		return
	}
	for _, f := range []string{"cpuset.mems", "cpuset.cpus"} {
		b, err := os.ReadFile(filepath.Join(from.dirs["cpuset"], f))
		if err != nil {
			t.Fatal(err)
		}
		to.set(t, "cpuset", f, string(b))
	}
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
	_ = walk(dir, func(d string) error {
		_ = writeFile(filepath.Join(d, "freezer.state"), "THAWED")
		_ = writeFile(filepath.Join(d, "cgroup.freeze"), "0")
		pids, err := appendPIDs(nil, d)
		for _, pid := range pids {
			if pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return err
	})
}

// newGroup makes a group with the controllers for memory, processes and
// processor time, in whatever hierarchy this machine has them.
func newGroup(t testing.TB) tree {
	t.Helper()
	if cgroups.Mode() != cgroups.Unified {
		return newV1(t)
	}
	tr, _ := newV2(t)
	tr.enable(t, filepath.Dir(tr.dirs[""]))
	return tr
}

// enable makes V2's controllers available in the groups of a directory.
func (tr tree) enable(t testing.TB, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0); err != nil {
		t.Fatal(err)
	}
}

// onV2 tells whether the tree is one directory in the unified hierarchy.
func (tr tree) onV2() bool { return tr.dirs[""] != "" }

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
	inheritCPUs(t, tree{dirs: map[string]string{"cpuset": filepath.Join(mounts.root, "cpuset")}}, tr)
	for _, c := range controllers {
		if tr.dirs[c] == "" {
			t.Skipf("this machine has no v1 hierarchy for %s", c)
		}
	}
	return tr
}

// newV2 makes a group in the unified hierarchy, wherever that is mounted; on a
// hybrid machine it has no controllers. The state describes it.
func newV2(t testing.TB) (tree, State) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make cgroups")
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if mount := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && mount[3] == "/" {
			path := fmt.Sprintf("/cleat-test-%d-%d", os.Getpid(), time.Now().UnixNano())
			tr := tree{root: mount[4], dirs: map[string]string{"": filepath.Join(mount[4], path)}}
			if err := os.Mkdir(tr.dirs[""], 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tr.remove(t) })
			return tr, State{Mode: V2, Root: tr.root, Paths: map[string]string{"": path}}
		}
	}
	t.Skip("this machine has no v2 hierarchy")
	return tree{}, State{}
}

func restore(t testing.TB, s State) *Group {
	t.Helper()
	g, err := Restore(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
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
