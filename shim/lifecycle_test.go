package shim

// Every RPC in every state, on a real OCI runtime: what the shim answers is
// what the lifecycle table says.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/message"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

const namespace = "cleat-lifecycle"

var subreaper = sync.OnceValue(child.BecomeSubreaper)

// newService is a Task service without a socket, for the real runc.
func newService(t *testing.T) *taskService {
	t.Helper()
	if err := subreaper(); err != nil {
		t.Fatal(err)
	}
	return &taskService{
		namespace:  namespace,
		invokedAs:  "containerd-shim-cleat-v2",
		containers: newContainers("lifecycle", joinLimit),
		events:     events.New(events.Options{Log: func(string, ...any) {}}),
		log:        &log{},
	}
}

// program finds what `make setup` has built.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "build", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: make setup builds it", err)
	}
	return path
}

// bundle makes a bundle whose container sleeps, and removes it in the end.
func bundle(t *testing.T, id string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), id)
	busybox, err := os.ReadFile(program(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"bin", "proc"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: "rootfs"},
		Process: sleeper(),
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
		},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func sleeper() *specs.Process {
	return &specs.Process{Args: []string{"/bin/busybox", "sleep", "1000"}, Cwd: "/"}
}

// packed makes an Any as a client does: of a generated message, or of JSON.
func packed(t *testing.T, m any) *message.Any {
	t.Helper()
	if m, ok := m.(proto.Message); ok {
		a, err := typeurl.MarshalAny(m)
		if err != nil {
			t.Fatal(err)
		}
		return &message.Any{TypeUrl: a.GetTypeUrl(), Value: a.GetValue()}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &message.Any{TypeUrl: fmt.Sprintf("types.containerd.io/%T", m), Value: text}
}

// sent is an Any for a client with generated types.
func sent(a *message.Any) *anypb.Any { return &anypb.Any{TypeUrl: a.TypeUrl, Value: a.Value} }

// subject is one container in a state, and perhaps an exec of it.
type subject struct {
	t       *testing.T
	service *taskService
	id      string
	bundle  string
}

const execID = "extra"

func (s *subject) createRequest(checkpoint string) *message.CreateTaskRequest {
	return &message.CreateTaskRequest{
		ID: s.id, Bundle: s.bundle, Checkpoint: checkpoint,
		Options: packed(s.t, &runcoptions.Options{BinaryName: program(s.t, "runc"), Root: filepath.Join(filepath.Dir(s.bundle), "runc")}),
	}
}

// must takes an RPC's result that has to be a success.
func (s *subject) must(what string) func(message.Message, error) {
	return func(_ message.Message, err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatalf("%s: %v", what, err)
		}
	}
}

// bring brings the container into the state.
func (s *subject) bring(to process.State) {
	ctx := s.t.Context()
	switch to {
	case process.Absent:
	case process.Restorable:
		s.must("create from a checkpoint")(s.service.create(ctx, s.createRequest("/nowhere")))
	case process.Created:
		s.must("create")(s.service.create(ctx, s.createRequest("")))
	case process.Running:
		s.bring(process.Created)
		s.must("start")(s.service.start(ctx, &message.StartRequest{ID: s.id}))
	case process.Paused:
		s.bring(process.Running)
		s.must("pause")(s.service.pause(ctx, &message.PauseRequest{ID: s.id}))
	case process.Stopped:
		s.bring(process.Running)
		s.must("kill")(s.service.kill(ctx, &message.KillRequest{ID: s.id, Signal: 9}))
		s.must("wait")(s.service.wait(ctx, &message.WaitRequest{ID: s.id}))
	case process.Deleted:
		s.bring(process.Stopped)
		s.must("delete")(s.service.delete(ctx, &message.DeleteRequest{ID: s.id}))
	}
}

// bringExec brings an exec of a running container into the state.
func (s *subject) bringExec(to process.State) {
	ctx := s.t.Context()
	switch to {
	case process.Absent:
		s.bring(process.Running)
	case process.Created:
		s.bring(process.Running)
		s.must("exec")(s.service.exec(ctx, s.execRequest()))
	case process.Running:
		s.bringExec(process.Created)
		s.must("start exec")(s.service.start(ctx, &message.StartRequest{ID: s.id, ExecID: execID}))
	case process.Stopped:
		s.bringExec(process.Running)
		s.must("kill exec")(s.service.kill(ctx, &message.KillRequest{ID: s.id, ExecID: execID, Signal: 9}))
		s.must("wait for exec")(s.service.wait(ctx, &message.WaitRequest{ID: s.id, ExecID: execID}))
	case process.Deleted:
		s.bringExec(process.Stopped)
		s.must("delete exec")(s.service.delete(ctx, &message.DeleteRequest{ID: s.id, ExecID: execID}))
	}
}

func (s *subject) execRequest() *message.ExecProcessRequest {
	return &message.ExecProcessRequest{ID: s.id, ExecID: execID, Spec: packed(s.t, sleeper())}
}

// remove ends whatever there is of the container.
func (s *subject) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.service.kill(ctx, &message.KillRequest{ID: s.id, Signal: 9, All: true})
	if container, err := s.service.containers.get(s.id); err == nil && container.Init().State().PID != 0 {
		s.service.wait(ctx, &message.WaitRequest{ID: s.id})
	}
	_, err := s.service.delete(ctx, &message.DeleteRequest{ID: s.id})
	if err != nil && !errdefs.IsNotFound(err) {
		s.t.Errorf("remove the container: %v", err)
	}
	if left := s.service.containers.all(); len(left) != 0 {
		s.t.Errorf("%d containers are left", len(left))
	}
}

// rpc is one RPC, asked of the container or of its exec.
type rpc struct {
	name string
	// op is what it is in the lifecycle table; reading ones are not there.
	op     process.Operation
	writes bool
	// exec tells that it can be asked of an exec.
	exec bool
	ask  func(s *subject, exec string) (message.Message, error)
}

// short bounds calls that may block.
func short(s *subject) context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 50*time.Millisecond)
	s.t.Cleanup(cancel)
	return ctx
}

var rpcs = []rpc{
	{"Create", process.OpCreate, true, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.create(s.t.Context(), s.createRequest(""))
	}},
	{"Start", process.OpStart, true, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.start(s.t.Context(), &message.StartRequest{ID: s.id, ExecID: exec})
	}},
	{"Exec", process.OpAddExec, true, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.exec(s.t.Context(), s.execRequest())
	}},
	{"Kill", process.OpKill, true, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.kill(s.t.Context(), &message.KillRequest{ID: s.id, ExecID: exec, Signal: 18})
	}},
	{"ResizePty", process.OpResize, true, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.resizePty(s.t.Context(), &message.ResizePtyRequest{ID: s.id, ExecID: exec, Width: 80, Height: 25})
	}},
	{"Delete", process.OpDelete, true, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.delete(s.t.Context(), &message.DeleteRequest{ID: s.id, ExecID: exec})
	}},
	{"Pause", process.OpPause, true, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.pause(s.t.Context(), &message.PauseRequest{ID: s.id})
	}},
	{"Resume", process.OpResume, true, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.resume(s.t.Context(), &message.ResumeRequest{ID: s.id})
	}},
	{"Update", process.OpUpdate, true, false, func(s *subject, _ string) (message.Message, error) {
		limit := int64(64 << 20)
		return s.service.update(s.t.Context(), &message.UpdateTaskRequest{ID: s.id, Resources: packed(s.t, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})})
	}},
	{"Checkpoint", process.OpCheckpoint, true, false, func(s *subject, _ string) (message.Message, error) {
		answer, err := s.service.checkpoint(s.t.Context(), &message.CheckpointTaskRequest{ID: s.id, Path: filepath.Join(filepath.Dir(s.bundle), "image")})
		var failed *driver.Error
		if errors.As(err, &failed) {
			err = nil // it was allowed; whether CRIU can do it here is not asked
		}
		return answer, err
	}},
	{"Shutdown", 0, false, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.shutdown(s.t.Context(), &message.ShutdownRequest{ID: s.id})
	}},
	{"State", 0, false, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.state(s.t.Context(), &message.StateRequest{ID: s.id, ExecID: exec})
	}},
	{"Wait", 0, false, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.wait(short(s), &message.WaitRequest{ID: s.id, ExecID: exec})
	}},
	{"CloseIO", 0, false, true, func(s *subject, exec string) (message.Message, error) {
		return s.service.closeIO(s.t.Context(), &message.CloseIORequest{ID: s.id, ExecID: exec, Stdin: true})
	}},
	{"Pids", 0, false, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.pids(s.t.Context(), &message.PidsRequest{ID: s.id})
	}},
	{"Stats", 0, false, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.stats(s.t.Context(), &message.StatsRequest{ID: s.id})
	}},
	{"Connect", 0, false, false, func(s *subject, _ string) (message.Message, error) {
		return s.service.connect(s.t.Context(), &message.ConnectRequest{ID: s.id})
	}},
}

// expected is the class of the answer: nil for a success.
func (r rpc) expected(exec bool, state process.State) error {
	missing := state == process.Absent || state == process.Deleted
	switch {
	case r.name == "Connect", r.name == "Shutdown", r.name == "Create" && missing:
		return nil
	case missing:
		return errdefs.ErrNotFound
	case r.writes:
		_, refusal := process.Next(exec, state, r.op)
		return refusal
	case r.name == "Wait" && state != process.Stopped:
		return context.DeadlineExceeded
	case r.name == "Stats" && state == process.Restorable:
		return errdefs.ErrNotFound // nothing runs, so there is no cgroup
	}
	return nil
}

// class reduces an error to what a client tests for.
func class(err error) error {
	for _, c := range []error{errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument, errdefs.ErrUnavailable, context.DeadlineExceeded} {
		if errors.Is(err, c) {
			return c
		}
	}
	return err
}

func TestEveryRPCInEveryStateAnswersAsTheTableSays(t *testing.T) {
	states := []process.State{process.Absent, process.Created, process.Restorable, process.Running, process.Paused, process.Stopped, process.Deleted}
	execStates := []process.State{process.Absent, process.Created, process.Running, process.Stopped, process.Deleted}
	for _, r := range rpcs {
		for _, state := range states {
			if r.name == "Start" && state == process.Restorable {
				continue // needs a checkpoint image and CRIU; integration/ has it
			}
			t.Run(fmt.Sprintf("%s/%s", r.name, state), func(t *testing.T) {
				t.Parallel()
				check(t, r, "", state, (*subject).bring)
			})
		}
		for _, state := range execStates {
			if r.exec {
				t.Run(fmt.Sprintf("%s/exec %s", r.name, state), func(t *testing.T) {
					t.Parallel()
					check(t, r, execID, state, (*subject).bringExec)
				})
			}
		}
	}
}

var subjects struct {
	sync.Mutex
	n int
}

func check(t *testing.T, r rpc, exec string, state process.State, bring func(*subject, process.State)) {
	subjects.Lock()
	subjects.n++
	id := fmt.Sprintf("lifecycle-%d-%d", os.Getpid(), subjects.n)
	subjects.Unlock()
	s := &subject{t: t, service: newService(t), id: id, bundle: bundle(t, id)}
	defer s.remove()
	bring(s, state)
	_, err := r.ask(s, exec)
	want := class(r.expected(exec != "", state))
	if got := class(err); got != want {
		t.Errorf("%s in state %s: class of %v, want %v", r.name, state, err, want)
	}
}

// containerd's own shim says status 0 at the year 1 to who waits, and panics at
// the second start.
func TestExecThatCannotBeStarted(t *testing.T) {
	id := fmt.Sprintf("lifecycle-%d-unstartable", os.Getpid())
	s := &subject{t: t, service: newService(t), id: id, bundle: bundle(t, id)}
	defer s.remove()
	s.bring(process.Running)
	ctx := t.Context()
	missing := &message.ExecProcessRequest{ID: id, ExecID: execID, Spec: packed(t, &specs.Process{Args: []string{"/no/such/program"}, Cwd: "/"})}
	s.must("exec")(s.service.exec(ctx, missing))

	start := &message.StartRequest{ID: id, ExecID: execID}
	if _, err := s.service.start(ctx, start); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("start: %v, want the runtime's words", err)
	}
	if _, err := s.service.start(ctx, start); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v, want a failed precondition", err)
	}
	answer, err := s.service.state(ctx, &message.StateRequest{ID: id, ExecID: execID})
	if err != nil {
		t.Fatal(err)
	}
	if state := answer.(*message.StateResponse); state.Status != message.Status_CREATED || state.Pid != 0 {
		t.Errorf("state %v, want created", state)
	}
	answer, err = s.service.wait(ctx, &message.WaitRequest{ID: id, ExecID: execID})
	if err != nil {
		t.Fatal(err)
	}
	if exit := answer.(*message.WaitResponse); exit.ExitStatus != 127 || time.Since(time.Unix(exit.ExitedAt.Seconds, 0)) > time.Minute {
		t.Errorf("wait: %v, want status 127, now", exit)
	}
	s.must("delete")(s.service.delete(ctx, &message.DeleteRequest{ID: id, ExecID: execID}))
}
