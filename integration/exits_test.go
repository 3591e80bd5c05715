package integration

// How processes end, and what is told of it.

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestExitStatus ends processes in all ways. Wait and Delete must tell the exit
// code, or 128 and the number of the signal.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "exit-status", forever).start(nil)
	for i, test := range []struct {
		args   []string
		signal syscall.Signal
		want   uint32
	}{
		{args: []string{"true"}, want: 0},
		{args: []string{"sh", "-c", "exit 1"}, want: 1},
		{args: []string{"sh", "-c", "exit 128"}, want: 128},
		{args: []string{"sh", "-c", "exit 255"}, want: 255},
		{args: []string{"sh", "-c", "kill -SEGV $$"}, want: 139},
		{args: []string{"sleep", "1000"}, signal: unix.SIGHUP, want: 129},
		{args: []string{"sleep", "1000"}, signal: unix.SIGINT, want: 130},
		{args: []string{"sleep", "1000"}, signal: unix.SIGKILL, want: 137},
		{args: []string{"sleep", "1000"}, signal: unix.SIGTERM, want: 143},
		{args: []string{"sleep", "1000"}, signal: 64, want: 192}, // the last of the real-time signals
	} {
		p := b.exec(fmt.Sprint("exec-", i), nil, test.args...)
		ended := b.wait(p)
		if test.signal != 0 {
			runs(t, p.Pid(), "sleep")
			if err := p.Kill(b.ctx, test.signal); err != nil {
				t.Fatalf("signal %d: %v", test.signal, err)
			}
		}
		waited := ended()
		if deleted := b.deleteExec(p); waited != test.want || deleted != test.want {
			t.Errorf("%q, signal %d: Wait says %d and Delete %d, want %d", test.args, test.signal, waited, deleted, test.want)
		}
	}
	ended := b.wait(b.task)
	b.kill(unix.SIGKILL)
	waited := ended()
	if deleted := b.delete(); waited != 137 || deleted != 137 {
		t.Errorf("a container that is killed: Wait says %d and Delete %d, want 137", waited, deleted)
	}
	nothingLeftOf(t, d, b.ID())
}

// TestEverybodyWhoWaitsIsTold has several clients wait for the same process:
// before the start, while it runs, after its end. One that gives up takes
// nothing from the others.
func TestEverybodyWhoWaitsIsTold(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "waiters", forever).create(cio.NullIO)
	var waiters []func() uint32
	more := func() { waiters = append(waiters, b.wait(b.task), b.wait(b.task)) }
	more()
	impatient, giveUp := context.WithCancel(b.ctx)
	gaveUp, err := b.task.Wait(impatient)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.task.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	more()
	giveUp()
	if status := <-gaveUp; status.Error() == nil {
		t.Errorf("a client that gives up waiting is told the exit code %d", status.ExitCode())
	}
	before := time.Now()
	catches(t, b.task.Pid(), unix.SIGTERM)
	b.kill(unix.SIGTERM)
	waiters[0]()
	more()
	for i, ended := range waiters[1:] {
		if code := ended(); code != 9 {
			t.Errorf("waiter %d is told %d, want 9", i+1, code)
		}
	}
	status, err := b.task.Status(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status.Status != containerd.Stopped || status.ExitStatus != 9 || status.ExitTime.Before(before) || status.ExitTime.After(time.Now()) {
		t.Errorf("the task is %+v, want it stopped with 9 after %s", status, before)
	}
	b.delete()
	nothingLeftOf(t, d, b.ID())
}

// TestPidsAreThoseOfTheContainer lists the first process, an exec with its id,
// and a child that nobody has told the shim of; and, until the task is deleted,
// the first process alone when all have ended.
func TestPidsAreThoseOfTheContainer(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "three-processes", []string{"sh", "-c", "trap 'exit 9' TERM; sleep 1000 & wait"}).create(cio.NullIO)
	init := int(b.task.Pid())
	if pids := b.pids(); !slices.Equal(pids, []int{init}) {
		t.Errorf("a created container has the processes %v, want %d", pids, init)
	}
	if err := b.task.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	p := b.exec("an-exec", nil, "sleep", "1000")
	eventually(t, func() error {
		if pids := b.pids(); len(pids) != 3 || !slices.Contains(pids, init) || !slices.Contains(pids, int(p.Pid())) {
			return fmt.Errorf("the container has the processes %v, want %d, %d, and a child of the first", pids, init, p.Pid())
		}
		return nil
	})
	list, err := b.task.Pids(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range list {
		exec := ""
		if process.Info != nil {
			var details options.ProcessDetails
			if err := typeurl.UnmarshalTo(process.Info, &details); err != nil {
				t.Errorf("the details of process %d: %v", process.Pid, err)
			}
			exec = details.ExecID
		}
		if is := process.Pid == p.Pid(); is != (exec == "an-exec") || !is && exec != "" {
			t.Errorf("process %d is said to be exec %q; the exec is %d", process.Pid, exec, p.Pid())
		}
	}
	ended := b.wait(b.task)
	b.kill(unix.SIGKILL)
	ended()
	if pids := b.pids(); !slices.Equal(pids, []int{init}) {
		t.Errorf("a container that has ended has the processes %v, want %d until it is deleted", pids, init)
	}
	b.delete()
	nothingLeftOf(t, d, b.ID())
}

// TestEventsTellWhatHappened compares every field of the events of a container
// with what happened.
func TestEventsTellWhatHappened(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	out := newTap(t)
	const id = "events"
	b := newBox(t, d, id, forever)
	events, err := d.Subscribe(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.start(fifos("", out.path, "", false))
	p := b.exec("an-exec", nil, "sh", "-c", "exit 6")
	b.wait(p)()
	b.deleteExec(p)
	if err := b.task.Pause(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.task.Resume(b.ctx); err != nil {
		t.Fatal(err)
	}
	ended := b.wait(b.task)
	b.kill(unix.SIGKILL)
	ended()
	status, err := b.task.Status(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.delete()
	if _, err := events.Until(within(t, soon), id, func(list []daemon.Event) bool { return indexOf(list, "/tasks/delete", "") >= 0 }); err != nil {
		t.Fatal(err)
	}

	pid := b.task.Pid()
	want := []proto.Message{
		&apievents.TaskCreate{ContainerID: id, Bundle: d.Bundle(id), IO: &apievents.TaskIO{Stdout: out.path}, Pid: pid},
		&apievents.TaskStart{ContainerID: id, Pid: pid},
		&apievents.TaskExecAdded{ContainerID: id, ExecID: "an-exec"},
		&apievents.TaskExecStarted{ContainerID: id, ExecID: "an-exec", Pid: p.Pid()},
		&apievents.TaskExit{ContainerID: id, ID: "an-exec", Pid: p.Pid(), ExitStatus: 6},
		&apievents.TaskPaused{ContainerID: id},
		&apievents.TaskResumed{ContainerID: id},
		&apievents.TaskExit{ContainerID: id, ID: id, Pid: pid, ExitStatus: 137},
		&apievents.TaskDelete{ContainerID: id, ID: id, Pid: pid, ExitStatus: 137},
	}
	var got []proto.Message
	for _, m := range events.Messages(id) {
		message := proto.Clone(m.(proto.Message))
		switch m := message.(type) {
		case *apievents.TaskCreate:
			if len(m.Rootfs) == 0 || m.Rootfs[0].Type == "" {
				t.Errorf("the root filesystem of the create event is %v", m.Rootfs)
			}
			m.Rootfs = nil
		case *apievents.TaskExit:
			if m.ID == id && !m.ExitedAt.AsTime().Equal(status.ExitTime) {
				t.Errorf("the exit event says that it was at %s, the task's status %s", m.ExitedAt.AsTime(), status.ExitTime)
			}
			m.ExitedAt = nil
		case *apievents.TaskDelete:
			if m.ID != id {
				continue // of the exec: allowed, not asked for
			}
			m.ExitedAt = nil
		}
		got = append(got, message)
	}
	if !slices.EqualFunc(got, want, func(a, b proto.Message) bool { return proto.Equal(a, b) }) {
		t.Errorf("the events are\n%s\nwant\n%s", messageLines(got), messageLines(want))
	}
	nothingLeftOf(t, d, id)
}

func messageLines(list []proto.Message) string {
	var text []string
	for _, m := range list {
		text = append(text, fmt.Sprintf("%s %v", m.ProtoReflect().Descriptor().Name(), m))
	}
	return lines(text)
}

// TestKillsAtOnce sends signals from several clients at once while the
// process is about to end: it ends once, with the first, and nobody gets an
// answer that is neither success nor "not found".
func TestKillsAtOnce(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "kills", forever).start(nil)
	ended := b.wait(b.task)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := b.task.Kill(b.ctx, unix.SIGKILL, containerd.WithKillAll)
			if err != nil && !errdefs.IsNotFound(err) {
				t.Errorf("one of several kills: %v", err)
			}
		})
	}
	all.Wait()
	if code := ended(); code != 137 {
		t.Errorf("the container ended with %d, want 137", code)
	}
	b.delete()
	nothingLeftOf(t, d, b.ID())
}
