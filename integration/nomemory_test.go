package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
)

// memoryGroup is a cgroup for a shim and what it starts that is not the
// container's.
type memoryGroup struct {
	t     *testing.T
	dir   string
	limit string // the name of the file for it
}

func newMemoryGroup(t *testing.T, name string) memoryGroup {
	t.Helper()
	g := memoryGroup{t: t, dir: filepath.Join("/sys/fs/cgroup/memory", name), limit: "memory.limit_in_bytes"}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		g.dir, g.limit = filepath.Join("/sys/fs/cgroup", name), "memory.max"
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(t, func() error { return os.Remove(g.dir) }) })
	g.set(g.limit, "-1")
	return g
}

func (g memoryGroup) set(file, text string) {
	g.t.Helper()
	if file == "memory.max" && text == "-1" {
		text = "max"
	}
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0); err != nil {
		g.t.Fatal(err)
	}
}

// kills is how often the kernel has killed something in it for want of memory.
func (g memoryGroup) kills() int {
	g.t.Helper()
	for _, file := range []string{"memory.oom_control", "memory.events"} {
		text, err := os.ReadFile(filepath.Join(g.dir, file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if number, found := strings.CutPrefix(line, "oom_kill "); found {
				n, err := strconv.Atoi(strings.TrimSpace(number))
				if err != nil {
					g.t.Fatal(err)
				}
				return n
			}
		}
	}
	return 0
}

// TestShimWithoutMemoryTellsTheTruth gives a shim, with the OCI runtimes that it
// starts, less and less memory, from what is enough down to where the kernel kills
// one or the other at some moment; or no addresses for more of it, so that Go's
// runtime ends it. What has failed can be asked for again when there is memory. Of
// a shim that has died `delete` leaves nothing and tells what was told.
func TestShimWithoutMemoryTellsTheTruth(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	l := newLone(t)
	g := newMemoryGroup(t, l.Namespace+"-shim")
	// A runtime that has just enough memory for its data and not for its program,
	// which the kernel reads from the disk again and again, never gets anywhere.
	patience := l.configured("[limits]\nlaunch = \"4s\"\ncontrol = \"2s\"\n")
	const kib = 1024
	died, failed, lived := 0, 0, 0
	try := func(i int, what string, scarce func(pid int) (undo func())) {
		f := l.fragile(fmt.Sprintf("scarce-%d", i), 1+i)
		f.boot(patience)
		pid := f.shimPID()
		undo := scarce(pid)
		done := f.live()
		undo()
		_, err := f.shim.State(f.ctx, &task.StateRequest{ID: f.id})
		switch {
		case errors.Is(err, ttrpc.ErrClosed):
			died++
			t.Logf("%s: the shim has died", what)
			eventually(t, func() error { return aliveNot(pid) })
			f.crashed()
		case done:
			lived++
			f.shutdown()
			f.clean()
		default:
			failed++
			f.goesOn(err == nil)
		}
		nothingOf(t, f.member)
	}
	n := 0
	for i := range rounds(t, upgrades(t, 12), 20*time.Second) {
		size := []int{512, 1536, 1024, 4 << 10, 1280, 1152, 2048, 1408, 1792, 32 << 10, 1664, 8 << 10}[i%12]
		try(n, fmt.Sprint(size, " KiB"), func(pid int) (undo func()) {
			g.set("cgroup.procs", strconv.Itoa(pid))
			g.set(g.limit, strconv.Itoa(size*kib))
			return func() { g.set(g.limit, "-1") }
		})
		n++
	}
	killed := g.kills()
	for i := range rounds(t, upgrades(t, 6), 20*time.Second) {
		room := []int{1 << 20, 64 << 10, 4 << 10, 1 << 10, 256, 0}[i%6]
		try(n, fmt.Sprint("addresses for ", room, " KiB"), func(pid int) (undo func()) {
			size := procNumber(t, fmt.Sprintf("/proc/%d/status", pid), "VmSize:")
			return limit(t, pid, unix.RLIMIT_AS, uint64(size+room)*kib)
		})
		n++
	}
	t.Logf("%d had enough, in %d something failed, %d shims died; the kernel has killed %d times", lived, failed, died, killed)
	// Whether the kernel kills the runtime, the shim, or nobody, and lets the runtime
	// read its program for ever, is its choice.
	if failed == 0 {
		t.Error("there was always enough of it")
	}
}

// goesOn is what a client does when something has failed and the shim is there.
func (f *fragile) goesOn(created bool) {
	f.t.Helper()
	if !created {
		if !f.live() {
			f.t.Errorf("%s: it does not live when there is memory again", f.id)
		}
		f.shutdown()
		f.clean()
		return
	}
	if err := f.tryKill("", unix.SIGKILL, true); err != nil && !errdefs.IsNotFound(err) {
		f.t.Errorf("kill %s: %v", f.id, err)
	}
	status := f.wait("")
	if status != 137 && status != f.status {
		f.t.Errorf("%s ended with %d, want 137 or %d", f.id, status, f.status)
	}
	if deleted := f.finish(); deleted != status {
		f.t.Errorf("%s: Wait says %d, Delete says %d", f.id, status, deleted)
	}
	if err := inOrder(f.member.told("/tasks/delete", ""), "/tasks/create", "/tasks/exit", "/tasks/delete"); err != nil {
		f.t.Errorf("%s: %v", f.id, err)
	}
}
