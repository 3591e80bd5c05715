package integration

// Requests that come at the wrong moment, or are about what is not there.

import (
	"context"
	"strings"
	"syscall"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
)

// refusal is what a request is answered: an error of a class.
type refusal func(error) bool

// TestRequestsAtTheWrongMoment asks containerd for what its state of things does
// not allow. Each answer must be of the right class, and change nothing.
func TestRequestsAtTheWrongMoment(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	service := client.TaskService()

	none := newBox(t, d, "no-task", forever) // has no task
	b := newBox(t, d, "at-work", forever).start(nil)
	ended := newBox(t, d, "has-ended", []string{"true"}).start(nil)
	ended.wait(ended.task)()
	running := b.exec("running", nil, "sleep", "1000")
	b.addExec("added", nil, "true")
	over := b.exec("over", nil, "sh", "-c", "exit 6")
	b.wait(over)()
	id, ctx := b.ID(), b.ctx
	exec := func(container, exec string, spec *anypb.Any) error {
		_, err := service.Exec(ctx, &tasks.ExecProcessRequest{ContainerID: container, ExecID: exec, Spec: spec})
		return errgrpc.ToNative(err)
	}
	good := execSpec(t, "true")

	var (
		absent  = refusal(errdefs.IsNotFound)
		wrong   = refusal(errdefs.IsFailedPrecondition)
		exists  = refusal(errdefs.IsAlreadyExists)
		invalid = refusal(errdefs.IsInvalidArgument)
	)
	for _, test := range []struct {
		name string
		want refusal
		ask  func() error
	}{
		{"create again", exists, func() error { _, err := b.NewTask(ctx, cio.NullIO); return err }},
		{"start again", wrong, func() error { return b.task.Start(ctx) }},
		{"start an exec again", wrong, func() error { return running.Start(ctx) }},
		{"start an exec that has ended", wrong, func() error { return over.Start(ctx) }},
		{"start an exec that is not there", absent, func() error {
			_, err := service.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: "nobody"})
			return errgrpc.ToNative(err)
		}},
		{"start what has ended", wrong, func() error { return ended.task.Start(ctx) }},
		{"delete what runs", wrong, func() error {
			_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
			return errgrpc.ToNative(err)
		}},
		{"delete an exec that runs", wrong, func() error {
			_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: "running"})
			return errgrpc.ToNative(err)
		}},
		{"delete an exec that is not there", absent, func() error {
			_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: "nobody"})
			return errgrpc.ToNative(err)
		}},
		{"delete without a task", absent, func() error {
			_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: none.ID()})
			return errgrpc.ToNative(err)
		}},
		{"exec without a task", absent, func() error { return exec(none.ID(), "x", good) }},
		{"exec in what has ended", wrong, func() error { return exec(ended.ID(), "x", good) }},
		{"exec with an id that is taken", exists, func() error { return exec(id, "running", good) }},
		{"exec with rubbish for a spec", invalid, func() error { return exec(id, "x", &anypb.Any{TypeUrl: good.TypeUrl, Value: []byte("{")}) }},
		{"exec with a spec of wrong types", invalid, func() error {
			return exec(id, "x", &anypb.Any{TypeUrl: good.TypeUrl, Value: []byte(`{"args": "sh", "cwd": 1}`)})
		}},
		{"exec with an id that is a path", invalid, func() error { return exec(id, "../x", good) }},
		{"exec with an id that is reserved", invalid, func() error { return exec(id, "init", good) }},
		{"exec with a long id", invalid, func() error { return exec(id, strings.Repeat("x", 1000), good) }},
		{"exec without an id", invalid, func() error { return exec(id, "", good) }},
		{"kill what has ended", absent, func() error { return ended.task.Kill(ctx, syscall.SIGKILL) }},
		{"kill an exec that has ended", absent, func() error { return over.Kill(ctx, syscall.SIGKILL) }},
		{"kill an exec that was not started", wrong, func() error {
			return b.task.Kill(ctx, syscall.SIGKILL, containerd.WithKillExecID("added"))
		}},
		{"kill an exec that is not there", absent, func() error {
			return b.task.Kill(ctx, syscall.SIGKILL, containerd.WithKillExecID("nobody"))
		}},
		{"kill with no signal", invalid, func() error { return b.task.Kill(ctx, 1000) }},
		{"wait for an exec that is not there", absent, func() error {
			_, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: "nobody"})
			return errgrpc.ToNative(err)
		}},
		{"resume what runs", wrong, func() error { return b.task.Resume(ctx) }},
		{"pause what has ended", wrong, func() error { return ended.task.Pause(ctx) }},
		{"resize to what no terminal has", invalid, func() error { return b.task.Resize(ctx, 1<<20, 24) }},
	} {
		if err := test.ask(); !test.want(err) {
			t.Errorf("%s: the answer is %v", test.name, err)
		}
	}

	b.status(containerd.Running)
	if out := b.output("after", "echo", "all the same"); out != "all the same\n" {
		t.Errorf("an exec after all that wrote %q", out)
	}
	ended.delete()
	b.end()
}

// execSpec is the spec of an exec as clients send it.
func execSpec(t *testing.T, args ...string) *anypb.Any {
	t.Helper()
	return (&member{lone: &lone{t: t}}).execSpec(args...)
}

// TestRequestsToAShimThatKnowsNoSuchContainer asks a shim itself, past
// containerd, about a container that it has never heard of, and then about one
// that it has deleted.
func TestRequestsToAShimThatKnowsNoSuchContainer(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("unknown", group("unknown"))
	all := func(when string) {
		t.Helper()
		for _, exec := range []string{"", "nobody"} {
			for name, err := range map[string]error{
				"State":     asked(t, m.shim.State, &task.StateRequest{ID: m.id, ExecID: exec}),
				"Start":     asked(t, m.shim.Start, &task.StartRequest{ID: m.id, ExecID: exec}),
				"Delete":    asked(t, m.shim.Delete, &task.DeleteRequest{ID: m.id, ExecID: exec}),
				"Wait":      asked(t, m.shim.Wait, &task.WaitRequest{ID: m.id, ExecID: exec}),
				"Kill":      asked(t, m.shim.Kill, &task.KillRequest{ID: m.id, ExecID: exec, Signal: 9}),
				"CloseIO":   asked(t, m.shim.CloseIO, &task.CloseIORequest{ID: m.id, ExecID: exec, Stdin: true}),
				"ResizePty": asked(t, m.shim.ResizePty, &task.ResizePtyRequest{ID: m.id, ExecID: exec}),
				"Exec":      asked(t, m.shim.Exec, m.execRequest("x", "true")),
				"Pids":      asked(t, m.shim.Pids, &task.PidsRequest{ID: m.id}),
				"Stats":     asked(t, m.shim.Stats, &task.StatsRequest{ID: m.id}),
				"Pause":     asked(t, m.shim.Pause, &task.PauseRequest{ID: m.id}),
				"Resume":    asked(t, m.shim.Resume, &task.ResumeRequest{ID: m.id}),
			} {
				if !errdefs.IsNotFound(err) {
					t.Errorf("%s of exec %q %s: %v, want not found", name, exec, when, err)
				}
			}
		}
		// By this containerd asks whether a shim is there.
		if answer, err := m.shim.Connect(within(t, soon), &task.ConnectRequest{ID: m.id}); err != nil || answer.TaskPid != 0 || answer.ShimPid == 0 {
			t.Errorf("Connect %s: %v, %v", when, answer, err)
		}
	}
	all("before Create")
	m.run()
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.delete("")
	all("after Delete")
	m.run()
	m.end()
}

// asked is the error that a shim answers.
func asked[Request, Answer any](t *testing.T, rpc func(context.Context, Request) (Answer, error), r Request) error {
	_, err := rpc(within(t, soon), r)
	return errgrpc.ToNative(err)
}
