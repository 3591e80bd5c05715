package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/containerd/errdefs"
)

// How long a thing takes that would not happen at all; nothing waits for it to
// be over.
const soon = 30 * time.Millisecond

// Whoever asks for what is under way gets its answer: containerd asks again
// after a restart.
func TestOperationThatIsUnderWayIsJoined(t *testing.T) {
	for _, c := range []struct {
		op      Operation
		command string
		prepare func(b *box)
		ask     func(b *box, ctx context.Context) error
		fails   bool
	}{
		{OpCreate, "create", func(b *box) {}, func(b *box, ctx context.Context) error { return b.Create(ctx) }, false},
		{OpCreate, "create", func(b *box) {}, func(b *box, ctx context.Context) error { return b.Create(ctx) }, true},
		{OpStart, "start", (*box).create, func(b *box, ctx context.Context) error { return b.Start(ctx) }, false},
		{OpPause, "pause", (*box).run, func(b *box, ctx context.Context) error { return b.Pause(ctx) }, false},
		{OpDelete, "delete", (*box).create, func(b *box, ctx context.Context) error { return b.Delete(ctx) }, false},
	} {
		t.Run(fmt.Sprintf("%s fails=%t", c.command, c.fails), func(t *testing.T) {
			b := newBox(t, boxOptions{})
			c.prepare(b)
			script := ocitest.Wait("go")
			if c.fails {
				script += "fail 'as the test wants'"
			}
			b.runtime.On(b.bundle, c.command, script)
			const askers = 5
			answers := make(chan error, askers)
			ctx := bounded(t)
			for range askers {
				go func() { answers <- c.ask(b, ctx) }()
			}
			eventually(t, "the operation is under way", func() bool { return b.Init().State().Operation == c.op.String() })
			b.runtime.Touch(b.bundle, "go")
			var errs []string
			for range askers {
				errs = append(errs, fmt.Sprint(receive(t, "an answer", answers)))
			}
			// Who asks when it is over already is told that by the table.
			late := slices.Compact(slices.Sorted(slices.Values(errs)))
			if len(late) > 2 {
				t.Errorf("answers %q", errs)
			}
			if c.fails != strings.Contains(strings.Join(errs, ""), "as the test wants") {
				t.Errorf("answers %q", errs)
			}
			n := 0
			for _, call := range b.runtime.Calls(b.bundle) {
				if call == c.command {
					n++
				}
			}
			if n != 1 {
				t.Errorf("the runtime was called %d times: %q", n, b.runtime.Calls(b.bundle))
			}
			if c.op == OpCreate && !c.fails {
				b.runtime.On(b.bundle, "delete", "")
			}
		})
	}
}

// Updates carry data: each is done.
func TestUpdatesAreNotJoined(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	b.runtime.On(b.bundle, "update", ocitest.Wait("go"))
	first := b.inBackground(b.Init(), OpUpdate, func(ctx context.Context) error { return b.Update(ctx, []byte(`{}`), nil) })
	second := make(chan error, 1)
	go func() { second <- b.Update(bounded(t), []byte(`{}`), nil) }()
	b.runtime.Touch(b.bundle, "go")
	must(t, "first update", receive(t, "the first answer", first))
	must(t, "second update", receive(t, "the second answer", second))
	if calls := b.runtime.Calls(b.bundle); !slices.Equal(calls, []string{"create", "start", "update", "update"}) {
		t.Errorf("calls %q", calls)
	}
}

// Operations on one process come one after the other, and each is judged by the
// state that the one before it has left.
func TestOperationsOfOneProcessAreSerialised(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.create()
	b.runtime.On(b.bundle, "start", ocitest.Wait("go"))
	started := b.inBackground(b.Init(), OpStart, b.Start)
	paused, deleted := make(chan error, 1), make(chan error, 1)
	go func() { paused <- b.Pause(bounded(t)) }()
	go func() { deleted <- b.Delete(bounded(t)) }()
	select {
	case err := <-paused:
		t.Errorf("pausing while it starts: %v", err)
	case err := <-deleted:
		t.Errorf("deleting while it starts: %v", err)
	case <-time.After(soon):
	}
	b.runtime.Touch(b.bundle, "go")
	must(t, "start", receive(t, "the start's answer", started))
	must(t, "pause", receive(t, "the pause's answer", paused))
	if err := receive(t, "the delete's answer", deleted); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("deleting what runs: %v", err)
	}
	must(t, "resume", b.Resume(bounded(t)))
	b.expect("create", "start", "paused", "resumed")
}

// One process's operation holds up no other's, and nobody who only reads: the
// daemon has five seconds for Connect and Pids of everything after a restart.
func TestNothingWaitsForARuntimeThatHangs(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	b.runtime.On(b.bundle, "exec-slow", ocitest.Wait("go"))
	b.runtime.On(b.bundle, "pause", ocitest.Wait("go"))
	slow, quick := b.exec("slow", sleeps), b.exec("quick", "exit 3")
	startedSlow := b.inBackground(slow, OpStart, slow.StartExec)
	must(t, "start another exec", quick.StartExec(bounded(t)))
	ends(t, quick, 3)
	paused := b.inBackground(b.Init(), OpPause, b.Pause)

	read := make(chan string, 1)
	go func() {
		pids, err := b.PIDs()
		_, found := b.Process("slow")
		b.State()
		b.Stats()
		slow.Resize(1, 1)
		slow.CloseStdin()
		b.Init().Kill(0, false)
		read <- fmt.Sprint(b.Init().State().State, slow.State().State, quick.State().State, err, found, pids[b.Init().State().PID])
	}()
	if got := receive(t, "the readers' end", read); !strings.HasPrefix(got, "running created stopped <nil> <nil>") {
		t.Errorf("read %s", got)
	}
	b.runtime.Touch(b.bundle, "go")
	must(t, "start slow exec", receive(t, "the exec's answer", startedSlow))
	must(t, "pause", receive(t, "the pause's answer", paused))
	must(t, "resume", b.Resume(bounded(t)))
}

// A client whose connection drops takes nothing with it: stock kills runc in the
// middle of create.
func TestCallerThatGivesUpDoesNotStopTheOperation(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.runtime.On(b.bundle, "create", ocitest.Wait("go"))
	ctx, giveUp := context.WithCancelCause(context.Background())
	answer := make(chan error, 1)
	go func() { answer <- b.Create(ctx) }()
	eventually(t, "the create is under way", func() bool { return len(b.runtime.Calls(b.bundle)) == 1 })
	reason := errors.New("the connection is gone")
	giveUp(reason)
	if err := receive(t, "the caller's answer", answer); !errors.Is(err, reason) {
		t.Errorf("the caller was told %v", err)
	}
	// The next one waits for its turn, and gives up too.
	if err := b.Start(ctx); !errors.Is(err, reason) {
		t.Errorf("who waits for the end of the create was told %v", err)
	}
	b.runtime.Touch(b.bundle, "go")
	// Asked again, by a daemon that is back.
	if err := b.Create(bounded(t)); err != nil && !errdefs.IsAlreadyExists(err) {
		t.Errorf("asked again: %v", err)
	}
	b.expect("create")
	b.start()
	if calls := b.runtime.Calls(b.bundle); !slices.Equal(calls, []string{"create", "start"}) {
		t.Errorf("calls %q", calls)
	}
}

func TestOperationThatTakesTooLongIsEnded(t *testing.T) {
	limits := DefaultLimits
	limits.Operation = 200 * time.Millisecond
	b := newBox(t, boxOptions{limits: limits})
	b.runtime.On(b.bundle, "create", "sleep 1000 & wait")
	err := b.Create(bounded(t))
	if err == nil || !strings.Contains(err.Error(), "no end within") || !strings.Contains(err.Error(), "create") {
		t.Errorf("error %v", err)
	}
	b.expect()
	receive(t, "the container is gone", b.gone)
}

// A panic is the error of the one operation that it happens in: the shim serves
// a whole pod. What the operation had done is undone, as for any other error.
func TestPanicIsTheErrorOfItsOperation(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	p := b.exec("panics", sleeps)
	p.spec = nil // to be dereferenced when its streams are open
	err := p.StartExec(bounded(t))
	if !errdefs.IsInternal(err) || !strings.Contains(err.Error(), "panic") {
		t.Fatalf("error %v", err)
	}
	if !b.told.said("exec.go") {
		t.Errorf("the log does not tell where: %q", b.told.lines)
	}
	exit, err := p.Wait(bounded(t))
	if err != nil || exit.Status == 0 {
		t.Errorf("waiting for it: %+v, %v", exit, err)
	}
	if _, out, _ := p.streams.Child(); out != nil {
		t.Error("its streams are still open")
	}
	must(t, "delete exec", p.DeleteExec(bounded(t)))
	// Everything else goes on, and the exit of init is not held back for it.
	other := b.exec("other", "exit 3")
	must(t, "start another exec", other.StartExec(bounded(t)))
	ends(t, other, 3)
	must(t, "kill", b.Init().Kill(9, false))
	b.ends(128 + 9)
	if b.told.said("told before those of its execs") {
		t.Error("the exit was held back for an exec that never ran")
	}
	b.delete()
}

func TestStepsAreTakenBackInReverseAfterAnErrorOrAPanic(t *testing.T) {
	for _, c := range []struct {
		name   string
		ends   func() error
		back   string
		panics bool
	}{
		{name: "success", ends: func() error { return nil }},
		{name: "error", ends: func() error { return errors.New("of the test") }, back: "[2 1]"},
		{name: "panic", ends: func() error { panic("of the test") }, back: "[2 1]", panics: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var back []int
			panicked := func() (v any) {
				defer func() { v = recover() }()
				func() (err error) {
					var undo undoing
					defer undo.unless(&err)
					undo.later(func() { back = append(back, 1) })
					undo.later(func() { back = append(back, 2) })
					return c.ends()
				}()
				return nil
			}()
			if got := strings.TrimPrefix(fmt.Sprint(back), "[]"); got != c.back || (panicked != nil) != c.panics {
				t.Errorf("taken back %s, panic %v", got, panicked)
			}
		})
	}
}
