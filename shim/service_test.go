package shim

// The Task service behind its socket, asked by ttrpc's own client.

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// served is a Task service and a client of it.
type served struct {
	task.TTRPCTaskService
	t       *testing.T
	service *taskService
	server  *ttrpcserver.Server
	socket  string
	client  *ttrpc.Client
	runtime *ocitest.Runtime
}

func serve(t *testing.T) *served {
	t.Helper()
	s := &served{t: t, service: newService(t), runtime: ocitest.New(t, namespace)}
	s.socket = filepath.Join(s.runtime.Dir(), "s")
	s.server = ttrpcserver.New(ttrpcserver.Options{Log: t.Logf})
	for _, version := range []string{"v2", "v3"} {
		s.server.Register("containerd.task."+version+".Task", s.service.methods())
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	must(t, "listen", err)
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(l) }()
	s.client = s.dial()
	s.TTRPCTaskService = task.NewTTRPCTaskClient(s.client)
	t.Cleanup(func() {
		for _, c := range s.service.containers.all() {
			c.Init().Kill(9, false)
			c.Init().Wait(bounded(t))
			c.Delete(bounded(t))
		}
		s.client.Close()
		must(t, "close server", s.server.Close(bounded(t)))
		<-failed
	})
	return s
}

func (s *served) dial() *ttrpc.Client {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket)
	must(s.t, "connect", err)
	client := ttrpc.NewClient(conn)
	s.t.Cleanup(func() { client.Close() })
	return client
}

func (s *served) createRequest(id string) *task.CreateTaskRequest {
	return &task.CreateTaskRequest{ID: id, Bundle: string(s.bundle(id)), Options: s.options()}
}

func (s *served) options() *anypb.Any {
	return sent(packed(s.t, &runcoptions.Options{BinaryName: s.runtime.Path(), Root: s.runtime.Root()}))
}

// bundle makes the bundle of a container that sleeps, if there is none.
func (s *served) bundle(id string) oci.Bundle {
	b := oci.Bundle(filepath.Join(s.runtime.Dir(), "bundles", id))
	if _, err := os.Stat(string(b)); err != nil {
		return s.runtime.Bundle(id, "exec sleep 1000")
	}
	return b
}

// raw asks a method with any bytes for its message.
func (s *served) raw(service, method string, payload []byte) error {
	// ttrpc's client knows generated messages only; unknown fields are bytes.
	request, response := new(task.ConnectRequest), new(task.ConnectResponse)
	request.ProtoReflect().SetUnknown(payload)
	return s.client.Call(bounded(s.t), service, method, request, response)
}

func TestRequestThatCannotBeReadIsInvalid(t *testing.T) {
	s := serve(t)
	for method := range s.service.methods() {
		for _, payload := range []string{"\xff", "\x0a\x7fshort", "\x0a\x02\xff\xfe"} {
			for _, version := range []string{"v2", "v3"} {
				if err := s.raw("containerd.task."+version+".Task", method, []byte(payload)); grpcstatus.Code(err) != codes.InvalidArgument {
					t.Errorf("%s of %s with %q: %v", method, version, payload, err)
				}
			}
		}
	}
	for _, c := range [][2]string{{"containerd.task.v1.Task", "State"}, {"containerd.task.v3.Task", "Nothing"}, {"containerd.runtime.sandbox.v1.Sandbox", "Ping"}} {
		if err := s.raw(c[0], c[1], nil); grpcstatus.Code(err) != codes.Unimplemented {
			t.Errorf("%s/%s: %v", c[0], c[1], err)
		}
	}
}

// Clients act on the code alone, which is gRPC's for the class of the error.
func TestCodesThatClientsActOn(t *testing.T) {
	s := serve(t)
	ctx := bounded(t)
	ask := func(what string, want codes.Code, says string, err error) {
		t.Helper()
		if grpcstatus.Code(err) != want || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("%s: %v, want code %s and %q", what, err, want, says)
		}
	}
	errorOf := func(_ any, err error) error { return err }
	id := "codes"
	ask("State before Create", codes.NotFound, id, errorOf(s.State(ctx, &task.StateRequest{ID: id})))
	ask("Delete before Create", codes.NotFound, id, errorOf(s.Delete(ctx, &task.DeleteRequest{ID: id})))
	s.runtime.On(s.bundle(id), "create", "fail 'the runtime is out of order'")
	ask("Create that fails", codes.Unknown, "the runtime is out of order", errorOf(s.Create(ctx, s.createRequest(id))))
	s.runtime.On(s.bundle(id), "create", "")
	if _, err := s.Create(ctx, s.createRequest(id)); err != nil {
		t.Fatal(err)
	}
	ask("Create again", codes.AlreadyExists, id, errorOf(s.Create(ctx, s.createRequest(id))))
	ask("Pause before Start", codes.FailedPrecondition, "pause", errorOf(s.Pause(ctx, &task.PauseRequest{ID: id})))
	ask("Exec that is not there", codes.NotFound, "other", errorOf(s.State(ctx, &task.StateRequest{ID: id, ExecID: "other"})))
	ask("Update that is no JSON", codes.InvalidArgument, "resources", errorOf(s.Update(ctx, &task.UpdateTaskRequest{ID: id, Resources: &anypb.Any{Value: []byte("{")}})))
	ask("ResizePty beyond 16 bits", codes.InvalidArgument, "70000", errorOf(s.ResizePty(ctx, &task.ResizePtyRequest{ID: id, Width: 70000})))
	ask("Checkpoint without a path", codes.InvalidArgument, "path", errorOf(s.Checkpoint(ctx, &task.CheckpointTaskRequest{ID: id})))
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := errorOf(s.Wait(short, &task.WaitRequest{ID: id})); grpcstatus.Code(err) != codes.DeadlineExceeded && short.Err() == nil {
		t.Errorf("Wait with a limit: %v", err)
	}
	if _, err := s.Start(ctx, &task.StartRequest{ID: id}); err != nil {
		t.Fatal(err)
	}
	ask("Delete while it runs", codes.FailedPrecondition, "running", errorOf(s.Delete(ctx, &task.DeleteRequest{ID: id})))
	ask("signal 200", codes.InvalidArgument, "200", errorOf(s.Kill(ctx, &task.KillRequest{ID: id, Signal: 200})))
	if _, err := s.Kill(ctx, &task.KillRequest{ID: id, Signal: 9}); err != nil {
		t.Fatal(err)
	}
	if exit, err := s.Wait(ctx, &task.WaitRequest{ID: id}); err != nil || exit.ExitStatus != 137 {
		t.Errorf("Wait: %v, %v", exit, err)
	}
	ask("Kill after the end", codes.NotFound, "process already finished", errorOf(s.Kill(ctx, &task.KillRequest{ID: id, Signal: 9})))
	if state, err := s.State(ctx, &task.StateRequest{ID: id}); err != nil || state.Status != tasktypes.Status_STOPPED || state.ExitStatus != 137 {
		t.Errorf("State: %v, %v", state, err)
	}
	if deleted, err := s.Delete(ctx, &task.DeleteRequest{ID: id}); err != nil || deleted.ExitStatus != 137 || deleted.Pid == 0 {
		t.Errorf("Delete: %v, %v", deleted, err)
	}
	ask("Wait after Delete", codes.NotFound, id, errorOf(s.Wait(ctx, &task.WaitRequest{ID: id})))
}

// Ids become parts of paths and of the runtime's command line.
func TestIDsThatAreNoneAreRefused(t *testing.T) {
	s := serve(t)
	ctx := bounded(t)
	if _, err := s.Create(ctx, s.createRequest("box")); err != nil {
		t.Fatal(err)
	}
	bad := []string{"", ".", "..", "../x", "a/b", "-a", "a-", "a..b", "a b", "a\x00b", "ä", "--help", strings.Repeat("x", 77)}
	for _, id := range bad {
		r := s.createRequest("other")
		r.ID = id
		if _, err := s.Create(ctx, r); grpcstatus.Code(err) != codes.InvalidArgument {
			t.Errorf("Create %q: %v", id, err)
		}
	}
	spec := &anypb.Any{Value: []byte("{}")}
	for _, id := range append(bad, "init", "box") { // those two stand for the init process
		if _, err := s.Exec(ctx, &task.ExecProcessRequest{ID: "box", ExecID: id, Spec: spec}); grpcstatus.Code(err) != codes.InvalidArgument {
			t.Errorf("Exec %q: %v", id, err)
		}
	}
	for _, id := range []string{"a", "a.b_c-d", "Init", strings.Repeat("x", 76)} {
		if _, err := s.Exec(ctx, &task.ExecProcessRequest{ID: "box", ExecID: id, Spec: spec}); err != nil {
			t.Errorf("Exec %q: %v", id, err)
		}
	}
	for _, bundle := range []string{"", "relative", "./b"} {
		r := s.createRequest("other")
		r.Bundle = bundle
		if _, err := s.Create(ctx, r); grpcstatus.Code(err) != codes.InvalidArgument {
			t.Errorf("Create in the bundle %q: %v", bundle, err)
		}
	}
	r := s.createRequest("other")
	r.Options = &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}
	if _, err := s.Create(ctx, r); grpcstatus.Code(err) != codes.InvalidArgument {
		t.Errorf("Create with options that cannot be read: %v", err)
	}
	if n := len(s.service.containers.all()); n != 1 {
		t.Errorf("%d containers are there", n)
	}
}

func TestConnectAnswersForAnyContainer(t *testing.T) {
	s := serve(t)
	ctx := bounded(t)
	for _, id := range []string{"nobody", ""} {
		if r, err := s.Connect(ctx, &task.ConnectRequest{ID: id}); err != nil || r.ShimPid != uint32(os.Getpid()) || r.TaskPid != 0 {
			t.Errorf("Connect for %q: %v, %v", id, r, err)
		}
	}
	created, err := s.Create(ctx, s.createRequest("box"))
	must(t, "create", err)
	if r, err := s.Connect(ctx, &task.ConnectRequest{ID: "box"}); err != nil || r.TaskPid != created.Pid || created.Pid == 0 {
		t.Errorf("Connect: %v, %v, want pid %d", r, err, created.Pid)
	}
}

// A `start` that was answered has the promise of a shim that waits for its
// container; one that cannot be kept is not given, and at once.
func TestShimThatAnswersAStartWaitsForItsContainer(t *testing.T) {
	join := func(ctx context.Context, s *served, id string) error {
		ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{bootstrap.JoinKey: {id}})
		_, err := task.NewTTRPCTaskClient(s.dial()).Connect(ctx, &task.ConnectRequest{ID: id})
		return err
	}
	shutdown := func(s *served, id string) {
		t.Helper()
		_, err := s.Shutdown(bounded(t), &task.ShutdownRequest{ID: id})
		must(t, "shutdown", err)
	}
	t.Run("goes on", func(t *testing.T) {
		s := serve(t)
		must(t, "join", join(bounded(t), s, "box"))
		shutdown(s, "lifecycle")
		if s.service.containers.isEnding() {
			t.Fatal("the shim ends although a container joins it")
		}
		_, err := s.Create(bounded(t), s.createRequest("box"))
		must(t, "create", err)
	})
	t.Run("ends", func(t *testing.T) {
		s := serve(t)
		shutdown(s, "lifecycle")
		began := time.Now()
		if err := join(bounded(t), s, "box"); err == nil || grpcstatus.Code(err) != codes.Unknown {
			t.Errorf("an ending shim has answered: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the end of the connection took %s", took)
		}
		if _, err := s.Create(bounded(t), s.createRequest("box")); grpcstatus.Code(err) != codes.Unavailable {
			t.Errorf("an ending shim has let a container in: %v", err)
		}
		// One that only looks is answered.
		if _, err := s.Connect(bounded(t), &task.ConnectRequest{ID: "box"}); err != nil {
			t.Errorf("Connect: %v", err)
		}
	})
}

// The next container of a pod may join in the moment in which the last one has
// gone: either it is let in and the shim stays, or it is told to go elsewhere.
func TestCreateThatRacesShutdown(t *testing.T) {
	in, out := 0, 0
	for round := range 30 {
		s := serve(t)
		first := s.createRequest("first")
		_, err := s.Create(bounded(t), first)
		must(t, "create", err)
		_, err = s.Shutdown(bounded(t), &task.ShutdownRequest{ID: "lifecycle"}) // for which it was started, in these tests
		must(t, "shutdown", err)
		_, err = s.Delete(bounded(t), &task.DeleteRequest{ID: "first"})
		must(t, "delete", err)
		second := s.createRequest("second")
		// On connections of their own, and each first in half of the rounds.
		created, ended := make(chan error, 1), make(chan error, 1)
		ctx, other := bounded(t), task.NewTTRPCTaskClient(s.dial())
		create := func() { _, err := s.Create(ctx, second); created <- err }
		shutdown := func() { _, err := other.Shutdown(ctx, &task.ShutdownRequest{ID: "first"}); ended <- err }
		if round%2 == 0 {
			go create()
			go shutdown()
		} else {
			go shutdown()
			go create()
		}
		must(t, "shutdown", receive(t, "the answer to Shutdown", ended))
		err = receive(t, "the answer to Create", created)
		ending := s.service.containers.isEnding()
		switch {
		case err == nil && !ending:
			in++
		case grpcstatus.Code(err) == codes.Unavailable && ending:
			out++
		default:
			t.Fatalf("Create: %v, and the shim ends: %t", err, ending)
		}
	}
	t.Logf("let in %d times, told to go elsewhere %d times", in, out)
}

// While one caller's Create is under way, another one's is the same; and after
// one that failed it is one of its own.
func TestSecondCreateOfOneContainer(t *testing.T) {
	s := serve(t)
	r := s.createRequest("box")
	s.runtime.On(s.bundle("box"), "create", ocitest.Wait("go"))
	answers := make(chan string, 2)
	ctx := bounded(t)
	for range 2 {
		go func() {
			response, err := s.Create(ctx, proto.CloneOf(r))
			answers <- fmt.Sprint(response.GetPid() != 0, " ", err)
		}()
	}
	eventually(t, "both are under way", func() bool { return len(s.server.Open()) == 2 && len(s.runtime.Calls(s.bundle("box"))) == 1 })
	s.runtime.Touch(s.bundle("box"), "go")
	for range 2 {
		if answer := receive(t, "an answer", answers); answer != "true <nil>" && !strings.Contains(answer, "AlreadyExists") {
			t.Errorf("answered %s", answer)
		}
	}
	if calls := s.runtime.Calls(s.bundle("box")); len(calls) != 1 {
		t.Errorf("the runtime was called for %q", calls)
	}
}

// What an answer says of standard IO is what the client said: containerd and
// CRI open the FIFOs anew from it.
func TestStateTellsWhatTheClientNamed(t *testing.T) {
	s := serve(t)
	dir := t.TempDir()
	r := s.createRequest("box")
	r.Stdout, r.Stderr = "file://"+dir+"/out%20put", "file:///dev/null"
	_, err := s.Create(bounded(t), r)
	must(t, "create", err)
	state, err := s.State(bounded(t), &task.StateRequest{ID: "box"})
	if err != nil || state.Stdout != r.Stdout || state.Stderr != r.Stderr || state.Stdin != "" || state.Bundle != r.Bundle || state.ID != "box" || state.ExecID != "" {
		t.Errorf("State: %v, %v", state, err)
	}
	if _, err := s.Exec(bounded(t), &task.ExecProcessRequest{ID: "box", ExecID: "e", Stdout: "/not/there/yet", Terminal: true, Spec: &anypb.Any{Value: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	state, err = s.State(bounded(t), &task.StateRequest{ID: "box", ExecID: "e"})
	if err != nil || state.Stdout != "/not/there/yet" || !state.Terminal || state.ID != "e" || state.Status != tasktypes.Status_CREATED {
		t.Errorf("State of the exec: %v, %v", state, err)
	}
}
