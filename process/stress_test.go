package process

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/containerd/errdefs"
)

// Hundreds of containers and execs whose processes end at any moment: before the
// runtime has told their pid, before the start is answered, with their init, or
// when they are told to. Stock loses exits then (#12678, #13849, #13814), or tells
// them in the wrong order.
func TestNoExitIsLostAndEventsAreInOrderUnderLoad(t *testing.T) {
	containers, atOnce := 200, 16
	if testing.Short() {
		containers = 24
	}
	r := ocitest.New(t, namespace)
	var created, exits, execs atomic.Int64
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for n := range containers {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			s := &story{t: t, random: rand.New(rand.NewPCG(1, uint64(n)))}
			s.live(r)
			created.Add(1)
			exits.Add(int64(s.exits))
			execs.Add(int64(s.execs))
		})
	}
	all.Wait()
	t.Logf("%d containers, %d execs, %d exits", created.Load(), execs.Load(), exits.Load())
	eventually(t, "no process is left", func() bool { return len(children()) == 0 })
}

// story is the random life of one container.
type story struct {
	t            *testing.T
	random       *rand.Rand
	execs, exits int
}

func (s *story) one(of ...string) string { return of[s.random.IntN(len(of))] }

func (s *story) live(r *ocitest.Runtime) {
	limits := DefaultLimits
	limits.ExecHold = patience // nothing hangs here, so no hold may end by itself
	b := newBoxOf(s.t, r, boxOptions{limits: limits, init: s.one("exit 3", "exit 3", sleeps, sleeps, "sleep 0.02; exit 3", "kill -9 $$")})
	if s.random.IntN(5) == 0 {
		b.runtime.After(b.bundle, "create", "kill -9 $pid; "+waitsForItsEnd)
	}
	if !s.ok("create", b.Create(bounded(s.t))) {
		return
	}
	waiters := s.waiters(b.Init(), 2)
	if s.random.IntN(10) > 0 {
		s.ok("start", b.Start(bounded(s.t)))
	}
	var execs sync.WaitGroup
	for n := range s.random.IntN(4) {
		s.execs++
		id := fmt.Sprint("exec", n)
		script := s.one("exit 4", "exit 4", sleeps, "sleep 0.01", "kill -9 $$")
		b.runtime.Exec(b.bundle, id, script)
		if script != sleeps && s.random.IntN(2) == 0 {
			b.runtime.After(b.bundle, "exec-"+id, waitsForItsEnd)
		}
		if err := b.AddExec(id, []byte(`{}`), b.Init().State().Stdio); err != nil {
			if !errdefs.IsFailedPrecondition(err) {
				s.t.Errorf("add exec: %v", err)
			}
			continue
		}
		p, err := b.Process(id)
		if err != nil {
			s.t.Error(err)
			continue
		}
		deletes := s.random.IntN(2) == 0
		execs.Go(func() { s.exec(b, p, script == sleeps, deletes) })
	}
	if s.random.IntN(2) == 0 {
		execs.Wait()
	}
	err := b.Init().Kill(syscall.SIGKILL, false)
	if err != nil && !errdefs.IsNotFound(err) {
		s.t.Errorf("kill: %v", err)
	}
	b.killExecs()
	for _, w := range waiters {
		if err := receive(s.t, "the exit of init", w); err != nil {
			s.t.Errorf("waiting for init: %v", err)
		}
	}
	execs.Wait()
	if err := b.Delete(bounded(s.t)); err != nil {
		s.t.Errorf("delete: %v", err)
	}
	b.inOrder()
	s.complete(b)
}

// exec starts an exec, which may end at any time, and waits for it.
func (s *story) exec(b *box, p *Process, kill, deletes bool) {
	err := p.StartExec(bounded(s.t))
	if err != nil && !errdefs.IsFailedPrecondition(err) {
		s.t.Errorf("start exec: %v; the container's events are %q", err, b.told.list())
	}
	if err == nil && kill {
		p.Kill(syscall.SIGKILL, false) // init may be gone by now, and its end was this one's
	}
	if p.State().State == Created {
		s.t.Errorf("%s was asked to start and is as it was", p.name())
	} else if exit, err := p.Wait(bounded(s.t)); err != nil && !errdefs.IsNotFound(err) || err == nil && exit.At.IsZero() {
		s.t.Errorf("waiting for %s: %+v, %v; events %q", p.name(), exit, err, b.told.list())
	}
	if deletes {
		if err := p.DeleteExec(bounded(s.t)); err != nil && !errdefs.IsNotFound(err) {
			s.t.Errorf("delete exec: %v", err)
		}
	}
}

func (s *story) ok(what string, err error) bool {
	if err != nil && !errdefs.IsFailedPrecondition(err) {
		s.t.Errorf("%s: %v", what, err)
		return false
	}
	return err == nil
}

func (s *story) waiters(p *Process, n int) (answers []<-chan error) {
	for range n {
		answer := make(chan error, 1)
		ctx := bounded(s.t)
		go func() { _, err := p.Wait(ctx); answer <- err }()
		answers = append(answers, answer)
	}
	return answers
}

// complete tells whether everything that began has been told to have ended.
func (s *story) complete(b *box) {
	told := map[string]int{}
	for _, word := range b.told.list() {
		told[word]++
	}
	if told["create"] != 1 || told["exit"] != 1 || told["delete"] != 1 {
		s.t.Errorf("events %q", b.told.list())
	}
	for _, e := range b.told.all() {
		if e.Kind == ExecStarted && told["exit/"+e.Exec] != 1 {
			s.t.Errorf("no exit of exec %s in %q", e.Exec, b.told.list())
		}
		if e.Kind == Exited {
			s.exits++
			if e.PID == 0 || e.Exit.At.IsZero() || time.Since(e.Exit.At) > time.Minute {
				s.t.Errorf("event %+v", e)
			}
		}
	}
}
