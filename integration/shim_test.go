package integration

// The shim as a process among the host's.

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
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestShimsOOMScore reads by how much the kernel's OOM killer prefers the shim to
// containerd: as little as can be.
func TestShimsOOMScore(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "oom-score", forever).start(nil)
	daemons := oomScore(t, d.PID())
	if got, want := oomScore(t, b.shimPID()), min(daemons+1, 1000); got != want {
		t.Errorf("the shim's oom_score_adj is %d, want %d: containerd's is %d", got, want, daemons)
	}
	b.end()
}

func oomScore(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return score
}

// shimPID is the process of the shim that serves the container.
func (b *box) shimPID() int {
	b.t.Helper()
	answer, err := b.shim().Connect(b.ctx, &task.ConnectRequest{ID: b.ID()})
	if err != nil {
		b.t.Fatalf("connect to the shim of %s: %v", b.ID(), err)
	}
	return int(answer.ShimPid)
}

// TestIdleShimSleeps counts how often the threads of a shim run, whose container
// and whose clients want nothing: not once.
func TestIdleShimSleeps(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "idle", forever).start(nil)
	b.exec("an-exec", nil, "sleep", "1000")
	pid := b.shimPID()
	size := private(t, pid)
	// What was just done may have an aftermath, once.
	eventually(t, func() error {
		before := switches(t, pid)
		<-time.After(3 * time.Second) // the measure, not a wait for anything
		if n := switches(t, pid) - before; n > 0 {
			return fmt.Errorf("the shim ran %d times within 3 s", n)
		}
		return nil
	})
	// A collection of garbage would show: it takes 400 KiB for itself.
	const more = 100 // KiB
	if now := private(t, pid); now > size+more {
		t.Errorf("the shim has done nothing, and has grown from %d to %d KiB of its own", size, now)
	}
	b.end()
}

// switches is how often the threads of a process went to sleep, which is how
// often they were awake.
func switches(t *testing.T, pid int) (n int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of the shim: %v", err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		_, after, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		times, err := strconv.Atoi(strings.Fields(after)[0])
		if err != nil {
			t.Fatal(err)
		}
		n += times
	}
	return n
}

// TestShimStaysWithItsContainers asks a shim to end in the ways that the world
// has, while it serves a container: it stays, and the container's exit code is
// told. When the container is deleted, it goes, and its socket.
func TestShimStaysWithItsContainers(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "stays", forever).start(nil)
	shim, pid := b.shim(), b.shimPID()
	for _, now := range []bool{false, true} {
		if err := asked(t, shim.Shutdown, &task.ShutdownRequest{ID: b.ID(), Now: now}); err != nil {
			t.Errorf("Shutdown with a container: %v", err)
		}
	}
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE, unix.SIGUSR1} {
		if err := unix.Kill(pid, signal); err != nil {
			t.Fatalf("signal %d to the shim: %v", signal, err)
		}
	}
	b.status(containerd.Running)
	if out := b.output("after", "echo", "all the same"); out != "all the same\n" {
		t.Errorf("an exec after all that wrote %q", out)
	}
	if again := b.shimPID(); again != pid {
		t.Errorf("the shim was process %d and is %d", pid, again)
	}
	if _, err := os.Stat(shim.Address); err != nil {
		t.Fatal(err)
	}
	ended := b.wait(b.task)
	catches(t, b.task.Pid(), unix.SIGTERM)
	b.kill(unix.SIGTERM)
	if code := ended(); code != 9 {
		t.Errorf("the container ended with %d, want 9", code)
	}
	if err := aliveNot(pid); err == nil {
		t.Error("the shim has ended with its container, before that is deleted")
	}
	b.delete()
	eventually(t, func() error { return aliveNot(pid) })
	if _, err := os.Stat(shim.Address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the shim has left its socket: %v", err)
	}
	nothingLeftOf(t, d, b.ID())
}

// TestShimWithoutContainersEndsBySIGTERM deletes a shim's only container and
// does not tell the shim that it is not needed any more.
func TestShimWithoutContainersEndsBySIGTERM(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("empty").run()
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.delete("")
	pid := m.shimPID()
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return aliveNot(pid) })
	if _, err := os.Stat(m.shim.Address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the shim has left its socket: %v", err)
	}
	m.clean()
}

// TestShimIsKilled kills a shim with SIGKILL. containerd cleans up by the shim's
// action `delete`: the container is killed, its end is told, everything is
// removed, and a new task of the container works.
func TestShimIsKilled(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "shim-killed", forever)
	events, err := d.Subscribe(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.start(nil)
	b.exec("an-exec", nil, "sleep", "1000")
	pids, shim := b.pids(), b.shimPID()
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(pids, shim) {
		eventually(t, func() error { return aliveNot(pid) })
	}
	list, err := events.Until(within(t, soon), b.ID(), func(list []daemon.Event) bool { return indexOf(list, "/tasks/delete", "") >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	exit := indexOf(list, "/tasks/exit", "")
	if exit < 0 || list[exit].PID != b.task.Pid() || list[exit].ExitStatus != 137 {
		t.Errorf("no exit of %d with 137 is told, but\n%s", b.task.Pid(), eventLines(list))
	}
	eventually(t, func() error {
		if _, err := b.Task(b.ctx, nil); !errdefs.IsNotFound(err) {
			return fmt.Errorf("to load the task of a killed shim gives %v", err)
		}
		return nil
	})
	b.start(nil)
	if out := b.output("after", "echo", "a new task"); out != "a new task\n" {
		t.Errorf("an exec in the new task wrote %q", out)
	}
	b.end()
}
