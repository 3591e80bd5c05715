package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

func TestExecLivesAndIsToldOf(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.create() // an exec may come before the start
	r := b.runtime
	out, errs, in := mkfifo(t, r.Dir(), "out"), mkfifo(t, r.Dir(), "err"), mkfifo(t, r.Dir(), "in")
	stdout, stderr := reads(t, out), reads(t, errs)
	p := b.execOn("one", `read line; echo "$line"; echo err >&2; exit 5`, stdio.Spec{Stdin: in, Stdout: out, Stderr: errs})
	must(t, "start exec", p.StartExec(bounded(t)))
	client, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, "open the input", err)
	client.WriteString("hello\n")
	client.Close()
	ends(t, p, 5)
	if got := receive(t, "the end of stdout", stdout); got != "hello\n" {
		t.Errorf("stdout %q", got)
	}
	if got := receive(t, "the end of stderr", stderr); got != "err\n" {
		t.Errorf("stderr %q", got)
	}
	must(t, "delete exec", p.DeleteExec(bounded(t)))
	if _, err := b.Process("one"); !errdefs.IsNotFound(err) {
		t.Errorf("a deleted exec: %v", err)
	}
	if err := p.DeleteExec(bounded(t)); !errdefs.IsNotFound(err) {
		t.Errorf("deleted again: %v", err)
	}
	// Its id is free again.
	again := b.exec("one", "exit 6")
	must(t, "start exec", again.StartExec(bounded(t)))
	ends(t, again, 6)
	b.told.mu.Lock()
	events := slices.Clone(b.told.events)
	b.told.mu.Unlock()
	for _, e := range events[1:5] {
		if e.Exec != "one" || e.Kind > ExecAdded && e.PID != p.State().PID {
			t.Errorf("event %+v, want one of exec one with pid %d", e, p.State().PID)
		}
	}
	if got := b.told.list(); !slices.Equal(got[:5], []string{"create", "exec-added/one", "exec-started/one", "exit/one", "delete/one"}) {
		t.Errorf("events %q", got)
	}
	if left := b.runtime.Left(b.bundle); slices.ContainsFunc(left, func(name string) bool { return strings.HasPrefix(name, "exec") || strings.HasPrefix(name, "log") }) {
		t.Errorf("the bundle holds %q", left)
	}
}

func TestExecsAreHeldAgainstTheirContainer(t *testing.T) {
	b := newBox(t, boxOptions{})
	add := func(id, spec string) error { return b.AddExec(id, []byte(spec), stdio.Spec{}) }
	if err := add("early", `{}`); !errdefs.IsNotFound(err) {
		t.Errorf("added to what is not there: %v", err)
	}
	b.run()
	for _, spec := range []string{"", "{", "[]", `{"args": "sh"}`} {
		if err := add("bad", spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("added with the spec %q: %v", spec, err)
		}
	}
	if _, err := b.Process("bad"); !errdefs.IsNotFound(err) {
		t.Errorf("what could not be added is there: %v", err)
	}
	p := b.exec("one", sleeps)
	if err := add("one", `{}`); !errdefs.IsAlreadyExists(err) {
		t.Errorf("added twice: %v", err)
	}
	if err := p.Kill(syscall.SIGKILL, false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("killed before it is started: %v", err)
	}
	must(t, "start exec", p.StartExec(bounded(t)))
	if err := p.StartExec(bounded(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("started again: %v", err)
	}
	if err := p.DeleteExec(bounded(t)); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("deleted while it runs: %v", err)
	}
	if pids, err := b.PIDs(); err != nil || pids[p.State().PID] != "one" {
		t.Errorf("pids %v, %v do not name it", pids, err)
	}
	must(t, "kill exec", p.Kill(syscall.SIGTERM, false))
	ends(t, p, 128+15)
	if err := p.Kill(syscall.SIGTERM, false); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "process already finished") {
		t.Errorf("killed after its end: %v", err)
	}
	must(t, "pause", b.Pause(bounded(t)))
	if err := add("late", `{}`); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("added to what is paused: %v", err)
	}
	must(t, "resume", b.Resume(bounded(t)))
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	if err := add("late", `{}`); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("added to what has ended: %v", err)
	}
}

// A failed start is the end of an exec: stock's Wait says status 0 in the year 1
// then, and a second Start takes the whole shim down.
func TestFailedStartIsTheEndOfAnExec(t *testing.T) {
	for _, c := range []struct {
		name, script, on string
		spec             stdio.Spec
		status           int
		says             string
		class            error
	}{
		{name: "no program", status: 127, says: "executable file not found"},
		{name: "not allowed", on: `fail "exec: \\\"/x\\\": permission denied"`, status: 126, says: "permission denied"},
		{name: "no such folder", on: `fail "chdir to cwd: no such file or directory"`, status: 127, says: "no such file or directory"},
		{name: "something else", on: `fail "the runtime is out of order"`, status: 255, says: "the runtime is out of order"},
		{name: "no FIFO", spec: stdio.Spec{Stdout: "/no/such/fifo"}, status: 127, says: "/no/such/fifo", class: errdefs.ErrNotFound},
		{name: "no terminal", script: sleeps, on: "console=; exec >/dev/null 2>&1", spec: stdio.Spec{Terminal: true}, status: 255, says: "sent no terminal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := DefaultLimits
			limits.Console = 100 * time.Millisecond
			b := newBox(t, boxOptions{limits: limits})
			b.run()
			descriptors := open(t)
			began := time.Now()
			p := b.execOn("bad", c.script, c.spec)
			b.runtime.On(b.bundle, "exec", c.on)
			waited := make(chan Exit, 1)
			go func() { exit, _ := p.Wait(bounded(t)); waited <- exit }()

			err := p.StartExec(bounded(t))
			if err == nil || !strings.Contains(err.Error(), c.says) || c.class != nil && class(err) != c.class {
				t.Errorf("error %v, want one of class %v that says %q", err, c.class, c.says)
			}
			if exit := receive(t, "the answer to a wait", waited); exit.Status != c.status || exit.At.Before(began) || exit.At.After(time.Now()) {
				t.Errorf("waiting for it: %+v, want status %d now", exit, c.status)
			}
			if s := p.State(); s.State != Stopped || s.Exit.Status != c.status {
				t.Errorf("state %+v", s)
			}
			for range 2 {
				if err := p.StartExec(bounded(t)); !errdefs.IsFailedPrecondition(err) {
					t.Errorf("started again: %v", err)
				}
			}
			must(t, "delete exec", p.DeleteExec(bounded(t)))
			eventually(t, "only init is left", func() bool { return len(children()) == 1 })
			eventually(t, "all is closed", func() bool { return open(t) <= descriptors })
			b.expect("create", "start", "exec-added/bad", "delete/bad")
		})
	}
}

// A runtime that fails after it has made the process (stock then has one that it
// does not know) leaves none.
func TestProcessOfAnExecWhoseStartFailedIsEnded(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	p := b.exec("late", sleeps)
	b.runtime.After(b.bundle, "exec", "fail 'the cgroup is gone'")
	if err := p.StartExec(bounded(t)); err == nil || !strings.Contains(err.Error(), "the cgroup is gone") {
		t.Errorf("error %v", err)
	}
	ends(t, p, 255)
	eventually(t, "only init is left", func() bool { return len(children()) == 1 })
	b.expect("create", "start", "exec-added/late")
}

// The end of init while an exec is started is why that failed, and clients look
// for its class.
func TestExecThatFailsBecauseInitHasEndedSaysSo(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	b.create()
	p := b.exec("unlucky", sleeps)
	// As long as init's start is not answered, its end is not told, and not yet
	// known to the exec's start.
	b.runtime.After(b.bundle, "start", ocitest.Wait("go"))
	starting := b.inBackground(b.Init(), OpStart, b.Start)
	eventually(t, "init is reaped", func() bool { return b.Init().child.Ended() && stateOf(b.Init().State().PID) == 0 })
	if err := p.StartExec(bounded(t)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "cannot exec in a stopped container") {
		t.Errorf("error %v", err)
	}
	b.runtime.Touch(b.bundle, "go")
	must(t, "start", receive(t, "the start's answer", starting))
	b.ends(3)
	b.expect("create", "exec-added/unlucky", "start", "exit")
}

// Who waits for an exec that is not started any more, because init has ended,
// learns of it when the start is refused and not only when it is deleted.
func TestWaitForAnExecThatIsRefusedBecauseInitHasEnded(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	p := b.exec("late", sleeps)
	early := make(chan error, 1)
	ctx := bounded(t)
	go func() { _, err := p.Wait(ctx); early <- err }()
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(137)
	for range 2 {
		if err := p.StartExec(bounded(t)); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("start: %v", err)
		}
	}
	must(t, "the wait from before", receive(t, "the end of the wait", early))
	ends(t, p, 255)
	if err := p.Kill(syscall.SIGKILL, false); !errdefs.IsNotFound(err) {
		t.Errorf("kill: %v", err)
	}
	must(t, "delete", p.DeleteExec(bounded(t)))
	b.delete()
	b.expect("create", "start", "exec-added/late", "exit", "delete/late", "delete")
}

// What a client asks before there are streams holds for those to come.
func TestInputClosedBeforeTheStartIsClosed(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	in := mkfifo(t, b.runtime.Dir(), "in")
	p := b.execOn("cat", "cat; exit 4", stdio.Spec{Stdin: in})
	must(t, "close stdin", p.CloseStdin())
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 4)
}

// One shim has the containers of a pod, so a line of its log names whose it is.
func TestLostOutputIsToldWithItsProcess(t *testing.T) {
	b := newBox(t, boxOptions{init: "echo lost; exec sleep 1000", spec: stdio.Spec{Stdout: "file:///dev/full"}})
	b.run()
	p := b.execOn("loses", "echo lost", stdio.Spec{Stdout: "file:///dev/full"})
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 0)
	for _, want := range []string{"container " + b.ID + ": stdout: output cannot be written", "exec loses of container " + b.ID + ": stdout: output cannot be written"} {
		eventually(t, want, func() bool { return b.told.said(want) })
	}
}

// CRI's ExecSync ends with Delete and expects that to release the IO, whatever
// the exec has left running; stock takes ten seconds.
func TestDeleteOfAnExecWhoseOutputIsHeldIsBounded(t *testing.T) {
	limits := DefaultLimits
	limits.Drain = 50 * time.Millisecond
	b := newBox(t, boxOptions{limits: limits})
	b.run()
	out := mkfifo(t, b.runtime.Dir(), "out")
	client := reads(t, out)
	pidFile := filepath.Join(b.runtime.Dir(), "pid")
	p := b.execOn("leaves", fmt.Sprintf(`echo before; (trap "" PIPE; exec sleep 1000) & echo $! >%s; exit 2`, pidFile), stdio.Spec{Stdout: out})
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 2)
	must(t, "delete exec", p.DeleteExec(bounded(t)))
	if got := receive(t, "the end of the output", client); got != "before\n" {
		t.Errorf("output %q", got)
	}
	var pid int
	text, err := os.ReadFile(pidFile)
	must(t, "read pid", err)
	fmt.Sscan(string(text), &pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

// The container's delete is its last event, also while an exec of it is being
// deleted.
func TestNoEventComesAfterTheContainersDelete(t *testing.T) {
	limits := DefaultLimits
	limits.Drain = 10 * time.Second
	b := newBox(t, boxOptions{limits: limits})
	b.run()
	out := mkfifo(t, b.runtime.Dir(), "out")
	hold, err := os.OpenFile(out, os.O_RDWR, 0)
	must(t, "open the output", err)
	defer hold.Close()
	pidFile := filepath.Join(b.runtime.Dir(), "pid")
	p := b.execOn("leaves", fmt.Sprintf(`sleep 1000 & echo $! >%s`, pidFile), stdio.Spec{Stdout: out})
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 0)
	deleting := b.inBackground(p, OpDelete, p.DeleteExec)
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	b.delete()
	var pid int
	text, err := os.ReadFile(pidFile)
	must(t, "read pid", err)
	fmt.Sscan(string(text), &pid)
	syscall.Kill(pid, syscall.SIGKILL)
	if err := receive(t, "the answer", deleting); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("deleting the exec: %v", err)
	}
	b.inOrder()
}

// An exec that is started when its container is deleted is not told of, and is
// not left behind.
func TestDeleteOfAContainerWaitsForNoExecForEver(t *testing.T) {
	limits := DefaultLimits
	limits.ExecHold = 50 * time.Millisecond
	b := newBox(t, boxOptions{limits: limits})
	b.run()
	p := b.exec("slow", sleeps)
	b.runtime.On(b.bundle, "exec", ocitest.Wait("go"))
	starting := b.inBackground(p, OpStart, p.StartExec)
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	b.delete()
	b.expect("create", "start", "exec-added/slow", "exit", "delete")
	b.runtime.Touch(b.bundle, "go")
	if err := receive(t, "the answer", starting); err == nil {
		t.Error("an exec of a deleted container was started")
	}
	if _, err := p.Wait(context.Background()); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("waiting for it: %v", err)
	}
	eventually(t, "no process is left", func() bool { return len(children()) == 0 })
	b.expect("create", "start", "exec-added/slow", "exit", "delete")
}
