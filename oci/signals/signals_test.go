package signals

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func send(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := unix.Kill(os.Getpid(), s); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, from <-chan syscall.Signal, want syscall.Signal) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Fatalf("told of %v, sent was %v", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%v is not told", want)
	}
}

// notified is Notify into a channel with room.
func notified(signals ...syscall.Signal) <-chan syscall.Signal {
	come := make(chan syscall.Signal, 64)
	Notify(func(s syscall.Signal) { come <- s }, signals...)
	return come
}

func TestEachSignalIsTold(t *testing.T) {
	all := []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGQUIT, unix.SIGHUP}
	come := notified(all...)
	for _, s := range all {
		send(t, s)
		receive(t, come, s)
	}
	Notify(nil, unix.SIGHUP)
	send(t, unix.SIGHUP)
	send(t, unix.SIGTERM)
	receive(t, come, unix.SIGTERM)
}

func TestIgnoreAndUndo(t *testing.T) {
	come := notified(unix.SIGTERM, unix.SIGUSR1)
	undo := Ignore(unix.SIGTERM, unix.SIGUSR2)
	if mask := statusOf(t, "self", "SigIgn"); mask&bit(unix.SIGTERM) == 0 || mask&bit(unix.SIGUSR2) == 0 {
		t.Errorf("ignored are %x", mask)
	}
	send(t, unix.SIGTERM)
	send(t, unix.SIGUSR2)
	undo()
	if mask := statusOf(t, "self", "SigIgn"); mask&(bit(unix.SIGTERM)|bit(unix.SIGUSR2)) != 0 {
		t.Errorf("after undo, ignored are %x", mask)
	}
	send(t, unix.SIGUSR1)
	receive(t, come, unix.SIGUSR1) // and not the one that was ignored
	send(t, unix.SIGTERM)
	receive(t, come, unix.SIGTERM)
}

// A container would have what its shim has.
func TestChildrenHaveTheirSignals(t *testing.T) {
	caught := []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGHUP, unix.SIGPIPE, unix.SIGCHLD}
	Notify(nil, caught...)
	for range 20 {
		cmd := exec.Command("cat", "/proc/self/status")
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"SigIgn", "SigBlk", "SigCgt"} {
			mask := field(t, string(text), name)
			for _, s := range caught {
				if mask&bit(s) != 0 {
					t.Errorf("a child has %v in %s (%x)", s, name, mask)
				}
			}
		}
	}
}

// It comes on any thread at any moment: in Go code, in system calls, while stacks
// grow and memory is collected, while children are started.
func TestSignalsUnderLoad(t *testing.T) {
	const storm = 20000
	var told atomic.Int64
	Notify(func(syscall.Signal) { told.Add(1) }, unix.SIGUSR1)
	done := make(chan struct{})
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for depth := 1; ; depth = depth%200 + 1 {
				select {
				case <-done:
					return
				default:
				}
				if grow(depth) != depth {
					t.Error("a stack is damaged")
				}
				_ = strings.Repeat("x", depth<<8)
				unix.Getppid()
			}
		})
	}
	load.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			runtime.GC()
			if err := exec.Command("true").Run(); err != nil {
				t.Error(err)
			}
		}
	})
	before := told.Load()
	for range storm {
		send(t, unix.SIGUSR1)
	}
	close(done)
	load.Wait()
	end := notified(unix.SIGUSR2)
	send(t, unix.SIGUSR2)
	receive(t, end, unix.SIGUSR2) // all before it are told
	t.Logf("%d of %d were told one by one", told.Load()-before, storm)
	if told.Load() == before {
		t.Error("none was told")
	}
}

func grow(depth int) int {
	var room [256]byte
	room[depth%len(room)] = byte(depth)
	if depth == 0 {
		return 0
	}
	n := grow(depth-1) + 1
	if room[depth%len(room)] != byte(depth) {
		return -1
	}
	return n
}

// What it is for. The test's own program has threads of its own, so another one is
// asked.
func TestNotifyStartsNoThread(t *testing.T) {
	if os.Getenv("SIGNALS_TEST_THREADS") != "" {
		before := threads(t)
		Notify(nil, unix.SIGHUP, unix.SIGCHLD)
		come := notified(unix.SIGTERM)
		send(t, unix.SIGTERM)
		receive(t, come, unix.SIGTERM)
		os.Stdout.WriteString("threads " + strconv.Itoa(threads(t)-before) + "\n")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNotifyStartsNoThread$", "-test.v")
	cmd.Env = append(os.Environ(), "SIGNALS_TEST_THREADS=1", "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// One may be in a system call just then.
	if !strings.Contains(string(out), "threads 0\n") && !strings.Contains(string(out), "threads 1\n") {
		t.Errorf("threads were started:\n%s", out)
	}
}

func threads(t *testing.T) int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

func bit(s syscall.Signal) uint64 { return 1 << (s - 1) }

func statusOf(t *testing.T, process, name string) uint64 {
	text, err := os.ReadFile("/proc/" + process + "/status")
	if err != nil {
		t.Fatal(err)
	}
	return field(t, string(text), name)
}

func field(t *testing.T, status, name string) uint64 {
	_, after, found := strings.Cut(status, name+":")
	value, _, _ := strings.Cut(strings.TrimSpace(after), "\n")
	mask, err := strconv.ParseUint(value, 16, 64)
	if !found || err != nil {
		t.Fatalf("no %s in %q", name, status)
	}
	return mask
}
