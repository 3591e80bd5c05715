package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

// The exit is on disk when its event is told, and the event is queued when those
// who wait are released. Stock releases first: 27 of 100 fast containers had
// their events wrong or not at all. (record.publish looks at every exit of every
// test in this package.)
func TestExitIsRecordedThenToldThenReleased(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 7"})
	b.create()
	const waiters = 10
	seen := make(chan []string, waiters)
	for range waiters {
		go func() {
			b.Init().Wait(bounded(t))
			seen <- b.told.list()
		}()
	}
	b.start()
	for range waiters {
		if got := receive(t, "the exit", seen); !slices.Equal(got, []string{"create", "start", "exit"}) {
			t.Errorf("released when %q was told", got)
		}
	}
	b.ends(7)
	b.delete()
	b.expect("create", "start", "exit", "delete")
	exit, err := b.bundle.ReadExit()
	if err != nil || exit.Status != 7 || !exit.Deleted {
		t.Errorf("recorded: %+v, %v", exit, err)
	}
}

func TestExitStatusIsTheShells(t *testing.T) {
	for _, c := range []struct {
		init           string
		status, signal int
	}{
		{"exit 0", 0, 0}, {"exit 1", 1, 0}, {"exit 255", 255, 0},
		{"kill -9 $$", 137, 9}, {"kill -TERM $$", 143, 15}, {"kill -SEGV $$", 139, 11},
	} {
		b := newBox(t, boxOptions{init: c.init})
		b.run()
		b.ends(c.status)
		exit, err := b.bundle.ReadExit()
		if err != nil || exit.Status != c.status || exit.Signal != c.signal || b.Init().State().Exit.Signal != c.signal {
			t.Errorf("%q: recorded %+v, %v, want status %d and signal %d", c.init, exit, err, c.status, c.signal)
		}
		b.delete()
	}
}

// A process that ends before the runtime has told its pid is the case that stock
// keeps a list of subscribers for, and loses under load. Its own launch comes
// first in the events.
func TestExitThatComesBeforeThePIDIsNotLost(t *testing.T) {
	t.Run("create", func(t *testing.T) {
		b := newBox(t, boxOptions{})
		// Real init processes die here of a bad mount or of the OOM killer.
		b.runtime.After(b.bundle, "create", "kill -9 $pid; "+waitsForItsEnd)
		b.create()
		b.ends(128 + 9)
		if s := b.Init().State().State; s != Stopped {
			t.Errorf("Create was answered in state %s", s)
		}
		b.expect("create", "exit")
		if err := b.Start(bounded(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("starting what has ended: %v", err)
		}
		b.delete()
		b.expect("create", "exit", "delete")
	})
	t.Run("start", func(t *testing.T) {
		b := newBox(t, boxOptions{init: "exit 3"})
		b.create()
		b.runtime.After(b.bundle, "start", "pid=$init; "+waitsForItsEnd)
		b.start()
		b.ends(3)
		b.expect("create", "start", "exit")
		b.delete()
	})
	t.Run("exec", func(t *testing.T) {
		b := newBox(t, boxOptions{})
		b.run()
		p := b.exec("quick", "exit 3")
		b.runtime.After(b.bundle, "exec", waitsForItsEnd)
		must(t, "start exec", p.StartExec(bounded(t)))
		ends(t, p, 3)
		b.expect("create", "start", "exec-added/quick", "exec-started/quick", "exit/quick")
	})
}

// waitsForItsEnd is a piece of script that waits until process $pid is a zombie,
// or gone.
const waitsForItsEnd = `
while { read -r stat </proc/$pid/stat; } 2>/dev/null; do
	case "$stat" in *") Z "*) break ;; esac
done
`

// The exit of init says that the container has ended, so it is the last one
// (#10589): also when a start of an exec is under way.
func TestExitOfInitComesAfterThoseOfItsExecs(t *testing.T) {
	limits := DefaultLimits
	limits.ExecHold = 10 * patience // on a busy machine ten seconds pass before the test is through
	b := newBox(t, boxOptions{limits: limits})
	b.run()
	one, two := b.exec("one", sleeps), b.exec("two", sleeps)
	must(t, "start exec", one.StartExec(bounded(t)))
	b.runtime.After(b.bundle, "exec", ocitest.Wait("go"))
	starting := b.inBackground(two, OpStart, two.StartExec)
	eventually(t, "the second exec is there", func() bool { return len(b.runtime.Calls(b.bundle)) == 4 })

	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	eventually(t, "init is reaped", func() bool { return b.Container.State().InitGone })
	must(t, "kill exec", one.Kill(syscall.SIGKILL, false))
	ends(t, one, 128+9)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if _, err := b.Init().Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the exit of init did not wait for an exec that is being started: %v", err)
	}
	// No new one begins meanwhile.
	three := b.exec("three", sleeps)
	if err := three.StartExec(bounded(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("starting an exec when init is gone: %v", err)
	}
	if calls := b.runtime.Calls(b.bundle); slices.Contains(calls, "exec-three") {
		t.Errorf("calls of the runtime %q", calls)
	}
	b.runtime.Touch(b.bundle, "go")
	must(t, "start exec", receive(t, "the answer", starting))
	must(t, "kill exec", two.Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	b.expect("create", "start", "exec-added/one", "exec-added/two", "exec-started/one", "exit/one", "exec-added/three", "exec-started/two", "exit/two", "exit")
	b.delete()
}

// The hold is bounded: an exec that hangs in the kernel must not hide for ever
// that its container has ended.
func TestExitOfInitIsNotHeldBackForEver(t *testing.T) {
	limits := DefaultLimits
	limits.ExecHold = 50 * time.Millisecond
	b := newBox(t, boxOptions{limits: limits})
	b.run()
	p := b.exec("hangs", sleeps)
	must(t, "start exec", p.StartExec(bounded(t)))
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	if got := b.told.list(); !slices.Equal(got, []string{"create", "start", "exec-added/hangs", "exec-started/hangs", "exit"}) {
		t.Errorf("events %q", got)
	}
	if !b.told.said("told before those of its execs") {
		t.Errorf("log %q", b.told.lines)
	}
	b.delete()
	// What is told of it after the container's delete is nothing, but who waits
	// for it is released.
	if _, err := p.Wait(bounded(t)); !errdefs.IsNotFound(err) {
		t.Errorf("waiting for an exec of a deleted container: %v", err)
	}
	must(t, "kill exec", p.Kill(syscall.SIGKILL, false))
	eventually(t, "the exec is reaped", func() bool { return p.State().State == Stopped })
	b.expect("create", "start", "exec-added/hangs", "exec-started/hangs", "exit", "delete")
}

// A failed start must not count as a running exec.
func TestExecThatDoesNotStartHoldsNothingBack(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	for i := range 3 {
		p := b.exec(fmt.Sprint("missing", i), "")
		if err := p.StartExec(bounded(t)); err == nil {
			t.Fatal("an exec without a program was started")
		}
	}
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	began := time.Now()
	b.ends(128 + 9)
	if took := time.Since(began); took > DefaultLimits.ExecHold/2 {
		t.Errorf("the exit took %s", took)
	}
	b.delete()
}

// Pids must list something until Delete: containerd, when it comes back, takes a
// task without processes for one that it has lost, and its status with it.
func TestInitIsListedUntilDelete(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	b.run()
	b.ends(3)
	pid := b.Init().State().PID
	if pids, err := b.PIDs(); err != nil || len(pids) == 0 {
		t.Errorf("pids %v, %v", pids, err)
	} else if _, ok := pids[pid]; !ok {
		t.Errorf("pids %v do not hold init's, %d", pids, pid)
	}
	b.delete()
}

// Waiting is not bound to a state: before the start, after the end, and by many.
func TestWait(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("the client has gone")
	cancel(reason)
	if _, err := b.Init().Wait(ctx); !errors.Is(err, reason) {
		t.Errorf("waiting with an ended context: %v", err)
	}
	b.create()
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() { ends(t, b.Init(), 3) })
	}
	b.start()
	all.Wait()
	b.ends(3)
	b.delete()
	b.ends(3) // who has the process still gets its status
}

// Those who wait for what is deleted before it ran are told that it is not there.
func TestWaitForWhatIsDeletedBeforeItRan(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	p, left := b.exec("never", sleeps), b.exec("left", sleeps)
	never, leftover := make(chan error, 1), make(chan error, 1)
	go func() { _, err := p.Wait(bounded(t)); never <- err }()
	go func() { _, err := left.Wait(bounded(t)); leftover <- err }()
	must(t, "delete exec", p.DeleteExec(bounded(t)))
	if err := receive(t, "the answer", never); !errdefs.IsNotFound(err) {
		t.Errorf("waiting for a deleted exec: %v", err)
	}
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	b.delete()
	if err := receive(t, "the answer", leftover); !errdefs.IsNotFound(err) {
		t.Errorf("waiting for an exec of a deleted container: %v", err)
	}
}

// Output is complete when the exit is known: nothing of the streams is needed
// any more, and what the client has not read waits in its FIFO.
func TestOutputOfAnEndedContainerIsComplete(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			r := ocitest.New(t, namespace)
			out := mkfifo(t, r.Dir(), "out")
			b := newBoxOf(t, r, boxOptions{init: "echo hello; exit 3", spec: stdio.Spec{Stdout: out, Terminal: terminal}})
			client := reads(t, out)
			b.create()
			b.start()
			b.ends(3)
			want := "hello\n"
			if terminal {
				want = "hello\r\n"
			}
			if got := receive(t, "the end of the output", client); got != want {
				t.Errorf("got %q", got)
			}
			b.delete()
		})
	}
}

// A client that reads no more when it is told the exit has read all by then.
func TestExitIsToldWhenTheClientHasRead(t *testing.T) {
	const most = 60_000 // there is room for in a FIFO
	script := fmt.Sprintf("head -c %d /dev/zero; head -c %d /dev/zero >&2; exit 3", most, most)
	begin := func(t *testing.T, limit time.Duration) (b *box, out, err *os.File) {
		r := ocitest.New(t, namespace)
		files := [2]*os.File{}
		spec := stdio.Spec{Stdout: mkfifo(t, r.Dir(), "out"), Stderr: mkfifo(t, r.Dir(), "err")}
		for i, path := range []string{spec.Stdout, spec.Stderr} {
			f, err := os.OpenFile(path, os.O_RDWR, 0) // who does not read yet
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			files[i] = f
		}
		b = newBoxOf(t, r, boxOptions{init: script, spec: spec, change: func(c *Config) { c.ReadFirst = limit }})
		b.create()
		b.start()
		eventually(t, "the end of the process", b.Init().child.Ended)
		return b, files[0], files[1]
	}
	told := func(b *box) bool { return !b.Init().State().Exit.At.IsZero() }
	t.Run("who reads", func(t *testing.T) {
		b, stdout, stderr := begin(t, time.Hour)
		for _, f := range []*os.File{stdout, stderr} {
			if told(b) {
				t.Error("the exit is told before all was read")
			}
			if _, err := io.ReadFull(f, make([]byte, most)); err != nil {
				t.Error(err)
			}
		}
		b.ends(3)
		b.delete()
	})
	t.Run("who does not", func(t *testing.T) {
		b, _, _ := begin(t, 0)
		began := time.Now()
		b.ends(3)
		t.Logf("the exit is told %s after the end", time.Since(began))
		b.delete()
	})
	t.Run("held up", func(t *testing.T) {
		b, stdout, stderr := begin(t, time.Hour)
		must(t, "hold", b.Hold(bounded(t)))
		if told(b) {
			t.Error("the exit is told when the container is held up")
		}
		b.GoOn()
		for _, f := range []*os.File{stdout, stderr} {
			if _, err := io.ReadFull(f, make([]byte, most)); err != nil {
				t.Error(err)
			}
		}
		b.ends(3)
		b.delete()
	})
}
