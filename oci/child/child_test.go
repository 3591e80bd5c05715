package child

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Without the signal's part in the status, `docker run` reports 15 for a
// container that was terminated and clients take it for the program's own.
func TestExitTellsCodeOrSignal(t *testing.T) {
	for _, c := range []struct {
		script string
		want   Exit
	}{
		{"exit 0", Exit{Status: 0}},
		{"exit 1", Exit{Status: 1}},
		{"exit 42", Exit{Status: 42}},
		{"exit 137", Exit{Status: 137}},
		{"exit 255", Exit{Status: 255}},
		{"kill -HUP $$", Exit{Status: 129, Signal: unix.SIGHUP}},
		{"kill -KILL $$", Exit{Status: 137, Signal: unix.SIGKILL}},
		{"kill -TERM $$", Exit{Status: 143, Signal: unix.SIGTERM}},
		{"ulimit -c 0; kill -SEGV $$", Exit{Status: 139, Signal: unix.SIGSEGV}},
		{"kill -64 $$", Exit{Status: 192, Signal: 64}},
	} {
		t.Run(c.script, func(t *testing.T) {
			before := time.Now()
			got := receive(t, "the exit", waited(launchOne(t, c.script)))
			if got.err != nil {
				t.Fatal(got.err)
			}
			if at := got.exit.At; at.Before(before) || at.After(time.Now()) {
				t.Errorf("ended at %s", at)
			}
			got.exit.At = time.Time{}
			if got.exit != c.want {
				t.Errorf("exit %+v, want %+v", got.exit, c.want)
			}
		})
	}
}

// A container whose program ends before the OCI runtime has told its pid: the
// exit was lost, and the container shown as running for ever.
func TestEarlyExitIsKeptForItsOwner(t *testing.T) {
	end := Launching()
	defer end()
	pid := launchAll(t, "exit 7")[0]
	eventually(t, "the early end", func() bool { return zombie(pid) })
	family.reapOrphans() // as any other exit would bring about
	c, err := Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end()
	if !c.Ended() {
		t.Error("a process that has ended is said to run")
	}
	if got := receive(t, "the exit", waited(c)); got.err != nil || got.exit.Status != 7 {
		t.Errorf("%+v, %v", got.exit, got.err)
	}
}

func TestEndedTellsTheEndBeforeAndAfterReaping(t *testing.T) {
	c := launchOne(t, "exec sleep 100")
	if c.Ended() {
		t.Error("ended before its time")
	}
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return zombie(c.PID) })
	if !c.Ended() {
		t.Error("a zombie is said to run")
	}
	if _, err := wait(t, c); err != nil {
		t.Fatal(err)
	}
	if !c.Ended() {
		t.Error("a reaped process is said to run")
	}
	c.Close()
	if !c.Ended() {
		t.Error("said to run after Close")
	}
}

// Clients tell a signal that came too late from one that was sent by the
// error; the kernel accepts any signal for a zombie.
func TestSignalReachesTheProcessOrSaysThatItHasEnded(t *testing.T) {
	c := launchOne(t, `trap 'exit 3' USR1; while :; do sleep 0.01; done`)
	eventually(t, "the trap to be set", func() bool { return catches(c.PID, unix.SIGUSR1) })
	if err := c.Signal(0); err != nil {
		t.Errorf("signal 0 to a running process: %v", err)
	}
	if err := c.Signal(65); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a signal that does not exist: %v", err)
	}
	if err := c.Signal(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return zombie(c.PID) })
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a zombie: %v", err)
	}
	if exit, err := wait(t, c); err != nil || exit.Status != 3 {
		t.Errorf("%+v, %v", exit, err)
	}
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a reaped process: %v", err)
	}
	c.Close()
	if err := c.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after Close: %v", err)
	}
}

func catches(pid int, signal syscall.Signal) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return n&(1<<(signal-1)) != 0
		}
	}
	return false
}

func TestAdoptOfNoneOfOursFailsAndOwnsNothing(t *testing.T) {
	c := launchOne(t, "exit 0")
	if _, err := wait(t, c); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(c.PID); !errors.Is(err, unix.ESRCH) {
		t.Errorf("adopt of a process that was reaped: %v", err)
	}
	for _, pid := range []int{0, -1} {
		if _, err := Adopt(pid); err == nil {
			t.Errorf("adopt of pid %d succeeded", pid)
		}
	}
	for _, pid := range []int{1, os.Getppid(), os.Getpid()} {
		if _, err := Adopt(pid); !errors.Is(err, unix.ECHILD) {
			t.Errorf("adopt of the stranger %d: %v", pid, err)
		}
	}
	family.mu.Lock()
	defer family.mu.Unlock()
	for _, pid := range []int{c.PID, 0, -1, 1, os.Getppid(), os.Getpid()} {
		if family.owned[pid] != 0 {
			t.Errorf("pid %d is still owned: the next process of that number would stay a zombie", pid)
		}
	}
}

// An OCI runtime that keeps its container as its own child (a supervisor): the
// exit cannot be had, but a container that runs was told to have ended.
func TestWaitForAnothersChildEndsWithIt(t *testing.T) {
	keeper := job("keep", "exec sleep 100")
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := keeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	command, err := Spawn(keeper)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Adopt(numbers(t, out, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := waited(c)
	// Nothing may come, and nothing tells that nothing has come.
	select {
	case r := <-got:
		t.Fatalf("the wait for a running process ended: %+v, %v", r.exit, r.err)
	case <-time.After(50 * time.Millisecond):
	}
	if c.Ended() {
		t.Fatal("it has not ended")
	}
	c.Signal(unix.SIGKILL)
	if r := receive(t, "the end", got); !errors.Is(r.err, unix.ECHILD) {
		t.Errorf("%+v, %v; want ECHILD", r.exit, r.err)
	}
	in.Close()
	if _, err := command.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// strace on a container's init sees its end first. The owner's exit was lost
// if it asked too early, or never asked again.
func TestExitOfATracedProcessIsNotLost(t *testing.T) {
	c := launchOne(t, "exec sleep 100")
	tracer := job("trace", strconv.Itoa(c.PID))
	out, err := tracer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := tracer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	command, err := Spawn(tracer)
	if err != nil {
		t.Fatal(err)
	}
	if line := make([]byte, 7); true {
		if _, err := io.ReadFull(out, line); err != nil {
			t.Skipf("cannot trace here: %v", err)
		}
	}
	got := waited(c)
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return zombie(c.PID) })
	family.reapOrphans()
	select {
	case r := <-got:
		t.Fatalf("told before the tracer let go: %+v, %v", r.exit, r.err)
	default:
	}
	in.Close()
	if r := receive(t, "the exit", got); r.err != nil || r.exit.Signal != unix.SIGKILL {
		t.Errorf("%+v, %v", r.exit, r.err)
	}
	if _, err := command.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsAWaitAndLeavesAnOrphan(t *testing.T) {
	c := launchOne(t, "exec sleep 100")
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	got := waited(c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	eventually(t, "the reaping of what has no owner", func() bool { return gone(c.PID) })
	if len(got) > 0 {
		t.Error("who has closed it is told its end")
	}
}

// What a launch that failed has told: a child that is left, or a number that
// may be anybody's by now.
func TestAdoptLeftTakesOnlyWhatIsOurs(t *testing.T) {
	t.Run("a child that runs", func(t *testing.T) {
		defer Launching()()
		c, err := AdoptLeft(launchAll(t, "exec sleep 100")[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if r := receive(t, "the exit", waited(c)); r.err != nil || r.exit.Status != 137 {
			t.Errorf("%+v, %v", r.exit, r.err)
		}
	})
	t.Run("a child that has ended", func(t *testing.T) {
		defer Launching()()
		pid := launchAll(t, "exit 3")[0]
		eventually(t, "the end", func() bool { return zombie(pid) })
		c, err := AdoptLeft(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if r := receive(t, "the exit", waited(c)); r.err != nil || r.exit.Status != 3 {
			t.Errorf("%+v, %v", r.exit, r.err)
		}
	})
	t.Run("a stranger", func(t *testing.T) {
		if c, err := AdoptLeft(os.Getppid()); !errors.Is(err, unix.ECHILD) {
			t.Errorf("%v, %v", c, err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		if c, err := AdoptLeft(1 << 30); err == nil {
			t.Errorf("%v", c)
		}
	})
	family.mu.Lock()
	defer family.mu.Unlock()
	if len(family.owned) != 0 {
		t.Errorf("still owned: %v", family.owned)
	}
}

// An upgrade interrupts the wait, and the exit is there afterwards, once.
func TestInterruptedWaitHasNotReaped(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run("ended "+when, func(t *testing.T) {
			flag := filepath.Join(t.TempDir(), "flag")
			release := func() {
				if err := os.WriteFile(flag, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := launchOne(t, "until [ -e "+flag+" ]; do sleep 0.01; done; exit 7")
			before := waited(c)
			if !c.Interrupt() {
				t.Fatal("a wait cannot be interrupted")
			}
			if c.Interrupt() {
				t.Error("interrupted twice")
			}
			if when == "before" {
				release()
				eventually(t, "the end", func() bool { return zombie(c.PID) })
			}
			after := waited(c)
			if when == "after" {
				release()
			}
			if got := receive(t, "the exit", after); got.err != nil || got.exit.Status != 7 {
				t.Errorf("exit %+v, %v", got.exit, got.err)
			}
			if c.Interrupt() {
				t.Error("the wait is said to go on after the exit")
			}
			if len(before)+len(after) > 0 {
				t.Error("the exit is told twice, or to who was interrupted")
			}
			c.Close()
		})
	}
}

// Whether or not an interruption comes in time, the exit is told to one: to who
// waited before, or to who waits then.
func TestInterruptionsRaceWithTheEnd(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		c := launchOne(t, "exit 7")
		before := waited(c)
		after := before
		if c.Interrupt() {
			after = waited(c)
		}
		if got := receive(t, "the exit", after); got.err != nil || got.exit.Status != 7 {
			t.Fatalf("exit %+v, %v", got.exit, got.err)
		}
		if len(before)+len(after) > 0 {
			t.Fatal("the exit is told twice, or to who was interrupted")
		}
		c.Close()
	}
}

// Where the kernel has no room for a watch the exit is not lost.
func TestExitIsToldWithoutAWatch(t *testing.T) {
	c := launchOne(t, "exit 7")
	got := make(chan result, 1)
	c.mu.Lock()
	c.then = func(exit Exit, err error) { got <- result{exit, err} }
	c.mu.Unlock()
	c.poll()
	if got := receive(t, "the exit", got); got.err != nil || got.exit.Status != 7 {
		t.Errorf("exit %+v, %v", got.exit, got.err)
	}
	c.Close()
}

// A shim may go back to a program that waits for pidfds on Go's netpoller, which
// takes none that blocks.
func TestPidfdIsOneForTheNetpoller(t *testing.T) {
	c := launchOne(t, "exec sleep 100")
	conn, err := c.Pidfd().SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	})
	if err := c.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, c)
	c.Close()
}
