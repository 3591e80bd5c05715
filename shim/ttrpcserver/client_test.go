package ttrpcserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connectClient is ttrpc's own client.
func connectClient(t testing.TB, path string) *ttrpc.Client {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(c)
	t.Cleanup(func() { client.Close() })
	return client
}

// patient is the context of calls that are to succeed.
func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func callText(ctx context.Context, c *ttrpc.Client, method, in string) (string, error) {
	var out wrapperspb.StringValue
	err := c.Call(ctx, testService, method, wrapperspb.String(in), &out)
	return out.Value, err
}

// handle makes a Handler of a function on messages.
func handle[In any, PIn interface {
	*In
	proto.Message
}, Out proto.Message](do func(context.Context, PIn) (Out, error)) Handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		in := PIn(new(In))
		if err := proto.Unmarshal(payload, in); err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		out, err := do(ctx, in)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(out)
	}
}

// The task messages of both versions are the same on the wire, so one set of
// handlers serves both names to containerd's generated clients.
func TestContainerdsTaskClientsAreServed(t *testing.T) {
	exited := make(chan struct{})
	methods := map[string]Handler{
		"State": handle(func(_ context.Context, r *taskv3.StateRequest) (*taskv3.StateResponse, error) {
			if r.ID != "c1" {
				return nil, fmt.Errorf("task %s: %w", r.ID, errdefs.ErrNotFound)
			}
			return &taskv3.StateResponse{ID: r.ID, Pid: 42, ExecID: r.ExecID}, nil
		}),
		"Wait": handle(func(ctx context.Context, r *taskv3.WaitRequest) (*taskv3.WaitResponse, error) {
			select {
			case <-exited:
				return &taskv3.WaitResponse{ExitStatus: 137}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}),
		"Kill": handle(func(_ context.Context, r *taskv3.KillRequest) (*emptypb.Empty, error) {
			if r.Signal != 9 {
				return nil, fmt.Errorf("signal %d: %w", r.Signal, errdefs.ErrInvalidArgument)
			}
			close(exited)
			return &emptypb.Empty{}, nil
		}),
	}
	s := New(Options{})
	s.Register("containerd.task.v2.Task", methods)
	s.Register("containerd.task.v3.Task", methods)
	path := socketPath(t)
	serve(t, s, path)

	client := connectClient(t, path)
	ctx := patient(t)
	v2, v3 := taskv2.NewTTRPCTaskClient(client), taskv3.NewTTRPCTaskClient(client)

	waited := make(chan error, 1)
	go func() {
		r, err := v3.Wait(ctx, &taskv3.WaitRequest{ID: "c1"})
		if err == nil && r.ExitStatus != 137 {
			err = fmt.Errorf("exit status %d", r.ExitStatus)
		}
		waited <- err
	}()
	if r, err := v3.State(ctx, &taskv3.StateRequest{ID: "c1", ExecID: "e"}); err != nil || r.Pid != 42 || r.ExecID != "e" {
		t.Errorf("v3 State: %v, %v", r, err)
	}
	if r, err := v2.State(ctx, &taskv2.StateRequest{ID: "c1"}); err != nil || r.Pid != 42 {
		t.Errorf("v2 State: %v, %v", r, err)
	}
	_, err := v3.State(ctx, &taskv3.StateRequest{ID: "c2"})
	if err := errgrpc.ToNative(err); !errdefs.IsNotFound(err) || err.Error() != "task c2: not found" {
		t.Errorf("State of an unknown task: %v", err)
	}
	if _, err := v2.Create(ctx, &taskv2.CreateTaskRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not there: %v", err)
	}
	if _, err := v3.Kill(ctx, &taskv3.KillRequest{ID: "c1", Signal: 9}); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if err := <-waited; err != nil {
		t.Errorf("Wait: %v", err)
	}
}

// A thousand requests wait on one connection while others are answered past
// them, and each gets its own answer.
func TestRequestsOfOneConnectionRunAtOnceAndEndInAnyOrder(t *testing.T) {
	const waiting = 1000
	gates := make([]chan struct{}, waiting)
	for i := range gates {
		gates[i] = make(chan struct{})
	}
	s, path := start(t, Options{}, map[string]Handler{
		"Gate": handle(func(ctx context.Context, in *wrapperspb.Int32Value) (*wrapperspb.StringValue, error) {
			select {
			case <-gates[in.Value]:
				return wrapperspb.String(fmt.Sprint(in.Value)), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}),
	})
	client := connectClient(t, path)
	ctx := patient(t)
	var calls sync.WaitGroup
	ends := make(chan int, waiting)
	for i := range waiting {
		calls.Go(func() {
			var out wrapperspb.StringValue
			if err := client.Call(ctx, testService, "Gate", wrapperspb.Int32(int32(i)), &out); err != nil || out.Value != fmt.Sprint(i) {
				t.Errorf("request %d: %q, %v", i, out.Value, err)
			}
			ends <- i
		})
	}
	eventually(t, "all wait", func() bool { return len(s.Open()) == waiting })
	for _, r := range s.Open() {
		if r.Service != testService || r.Method != "Gate" || r.Connection != 1 || r.Answered || r.Dropped || r.Age <= 0 {
			t.Fatalf("open request: %+v", r)
		}
	}
	if out, err := callText(ctx, client, "Echo", "past them"); err != nil || out != "past them" {
		t.Errorf("a request past the waiting ones: %q, %v", out, err)
	}
	for i := range waiting {
		last := waiting - 1 - i
		close(gates[last])
		if got := <-ends; got != last {
			t.Fatalf("request %d ended instead of %d", got, last)
		}
	}
	calls.Wait()
	// The last answer is here before it is noted down there that it has left.
	eventually(t, "no request is open", func() bool { return len(s.Open()) == 0 })
}

func TestManyClientsAtOnce(t *testing.T) {
	s, path := start(t, Options{}, nil)
	ctx := patient(t)
	var calls sync.WaitGroup
	for c := range 10 {
		client := connectClient(t, path)
		for g := range 20 {
			calls.Go(func() {
				for i := range 20 {
					in := fmt.Sprint(c, g, i, strings.Repeat("x", i*g*10))
					if out, err := callText(ctx, client, "Echo", in); err != nil || out != in {
						t.Errorf("%d bytes: got %d, %v", len(in), len(out), err)
					}
				}
			})
		}
		defer client.Close()
	}
	calls.Wait()
	// The last answer is here before it is noted down there that it has left.
	eventually(t, "no request is open", func() bool { return len(s.Open()) == 0 })
}

func TestMetadataReachesTheHandler(t *testing.T) {
	_, path := start(t, Options{}, nil)
	client := connectClient(t, path)
	ctx := ttrpc.WithMetadata(patient(t), ttrpc.MD{"containerd-namespace-ttrpc": {"default", "second"}})
	got, err := callText(ctx, client, "Metadata", "containerd-namespace-ttrpc")
	if want := `1 ["default" "second"]`; got != want || err != nil {
		t.Errorf("metadata %s, %v, want %s", got, err, want)
	}
}

// The caller's timeout ends the context, with the error that says so.
func TestCallersTimeoutEndsTheContext(t *testing.T) {
	ended := make(chan error, 1)
	_, path := start(t, Options{}, map[string]Handler{
		"Slow": func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	})
	client := connectClient(t, path)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := callText(ctx, client, "Slow", ""); !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("call: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("handler's context: %v", err)
	}
	// The late answer disturbs nobody.
	if out, err := callText(patient(t), client, "Echo", "after"); err != nil || out != "after" {
		t.Errorf("after it: %q, %v", out, err)
	}
}

// What a handler started must be able to end with the request.
func TestContextEndsWhenTheHandlerReturns(t *testing.T) {
	contexts := make(chan context.Context, 1)
	_, path := start(t, Options{}, map[string]Handler{
		"Keep": func(ctx context.Context, _ []byte) ([]byte, error) { contexts <- ctx; return nil, nil },
	})
	if _, err := callText(patient(t), connectClient(t, path), "Keep", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-(<-contexts).Done():
	case <-time.After(patience):
		t.Error("the context goes on")
	}
}

func TestPayloadsUpToTheLimitPassAndLargerAreRefusedAlone(t *testing.T) {
	_, path := start(t, Options{}, map[string]Handler{
		// Answers with as many bytes as asked for.
		"Bytes": handle(func(_ context.Context, in *wrapperspb.Int32Value) (*wrapperspb.BytesValue, error) {
			return wrapperspb.Bytes(make([]byte, in.Value)), nil
		}),
	})
	client := connectClient(t, path)
	ctx := patient(t)
	for _, size := range []int{1 << 20, maxData - 200} {
		in := strings.Repeat("x", size)
		if out, err := callText(ctx, client, "Echo", in); err != nil || out != in {
			t.Errorf("%d bytes: %d came back, %v", size, len(out), err)
		}
	}
	// A BytesValue's tag and length, and the same of the payload around it.
	const around = 2 * (1 + 4)
	var out wrapperspb.BytesValue
	fits := int32(maxData - around)
	if err := client.Call(ctx, testService, "Bytes", wrapperspb.Int32(fits), &out); err != nil || len(out.Value) != int(fits) {
		t.Errorf("the largest answer: %d bytes, %v", len(out.Value), err)
	}
	// ttrpc's server closes the connection on this.
	err := client.Call(ctx, testService, "Bytes", wrapperspb.Int32(fits+1), &out)
	if want := "message length 4194305 exceed maximum message size of 4194304"; status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != want {
		t.Errorf("an answer one byte too large: %v", err)
	}
	err = client.Call(ctx, testService, "Bytes", wrapperspb.Int32(5*maxData), &out)
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a far too large answer: %v", err)
	}
	if out, err := callText(ctx, client, "Echo", "after"); err != nil || out != "after" {
		t.Errorf("after it: %q, %v", out, err)
	}
}

// The payload is the handler's for as long as it likes: it must not be in a
// buffer that the next request is read into.
func TestPayloadStaysValidAfterTheRequest(t *testing.T) {
	var mu sync.Mutex
	var kept, copies [][]byte
	_, path := start(t, Options{}, map[string]Handler{
		"Keep": func(_ context.Context, payload []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			kept, copies = append(kept, payload), append(copies, slices.Clone(payload))
			return payload, nil
		},
	})
	client := connectClient(t, path)
	for i := range 200 {
		in := strings.Repeat(fmt.Sprint(i), 1+i*37%9000)
		if out, err := callText(patient(t), client, "Keep", in); err != nil || out != in {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	for i := range kept {
		if !slices.Equal(kept[i], copies[i]) {
			t.Fatalf("payload %d has changed", i)
		}
	}
}

// Each class of errors has its code, and the words arrive unchanged.
func TestErrorsAreMappedByTheirClass(t *testing.T) {
	cases := []struct {
		err  error
		code codes.Code
		text string
	}{
		{fmt.Errorf("a: %w", errdefs.ErrInvalidArgument), codes.InvalidArgument, "a: invalid argument"},
		{fmt.Errorf("a: %w", errdefs.ErrNotFound), codes.NotFound, "a: not found"},
		{fmt.Errorf("a: %w", errdefs.ErrAlreadyExists), codes.AlreadyExists, "a: already exists"},
		{fmt.Errorf("a: %w", errdefs.ErrPermissionDenied), codes.PermissionDenied, "a: permission denied"},
		{fmt.Errorf("a: %w", errdefs.ErrFailedPrecondition), codes.FailedPrecondition, "a: failed precondition"},
		{fmt.Errorf("a: %w", errdefs.ErrConflict), codes.FailedPrecondition, "a: conflict"},
		{fmt.Errorf("a: %w", errdefs.ErrNotImplemented), codes.Unimplemented, "a: not implemented"},
		{fmt.Errorf("a: %w", errdefs.ErrInternal), codes.Internal, "a: internal"},
		{fmt.Errorf("a: %w", errdefs.ErrUnavailable), codes.Unavailable, "a: unavailable"},
		{fmt.Errorf("a: %w", errdefs.ErrAborted), codes.Aborted, "a: aborted"},
		{fmt.Errorf("a: %w", context.Canceled), codes.Canceled, "a: context canceled"},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "a: context deadline exceeded"},
		{fmt.Errorf("a: %w", errdefs.ErrDataLoss), codes.DataLoss, "a: " + errdefs.ErrDataLoss.Error()},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, errdefs.ErrUnavailable), codes.Unavailable, "context deadline exceeded: unavailable"},
		{errors.New("a"), codes.Unknown, "a"},
		// A stray ENOENT is no "no such task", as which containerd takes it.
		{fmt.Errorf("a: %w", net.ErrClosed), codes.Unknown, "a: use of closed network connection"},
		// What an OCI runtime prints need not be UTF-8; ttrpc's server closes
		// the connection on it.
		{fmt.Errorf("runc: \xff\xfe: %w", errdefs.ErrUnavailable), codes.Unavailable, "runc: \uFFFD: unavailable"},
	}
	_, path := start(t, Options{}, map[string]Handler{
		"Fail": handle(func(_ context.Context, in *wrapperspb.Int32Value) (*emptypb.Empty, error) {
			return nil, cases[in.Value].err
		}),
	})
	client := connectClient(t, path)
	for i, c := range cases {
		err := client.Call(patient(t), testService, "Fail", wrapperspb.Int32(int32(i)), &emptypb.Empty{})
		if st := status.Convert(err); st.Code() != c.code || st.Message() != c.text {
			t.Errorf("%v: answered %v %q, want %v %q", c.err, st.Code(), st.Message(), c.code, c.text)
		}
	}
	if _, err := callText(patient(t), client, "NoFile", ""); status.Code(err) != codes.Unknown {
		t.Errorf("a file that does not exist: %v", err)
	}
}

func TestPanicIsTheErrorOfOneRequest(t *testing.T) {
	type panicked struct {
		method string
		value  any
		stack  string
	}
	told := make(chan panicked, 10)
	s, path := start(t, Options{
		OnPanic: func(method string, value any, stack []byte) { told <- panicked{method, value, string(stack)} },
	}, map[string]Handler{
		"Panic":    func(context.Context, []byte) ([]byte, error) { panic("oh \xff no") },
		"Index":    func(_ context.Context, payload []byte) ([]byte, error) { return payload[len(payload):][:1:1], nil },
		"Goexit":   func(context.Context, []byte) ([]byte, error) { runtime.Goexit(); return nil, nil },
		"BadError": func(context.Context, []byte) ([]byte, error) { return nil, badError{} },
	})
	client := connectClient(t, path)
	ctx := patient(t)
	held := make(chan error, 1)
	go func() {
		_, err := callText(ctx, client, "Hold", "held")
		held <- err
	}()
	eventually(t, "the other request waits", func() bool { return len(s.Open()) == 1 })
	for method, want := range map[string]string{
		"Panic":    "oh \uFFFD no",
		"Index":    "runtime error: slice bounds out of range [::1] with capacity 0",
		"Goexit":   "<nil>",
		"BadError": "no words",
	} {
		_, err := callText(ctx, client, method, "")
		full := "/" + testService + "/" + method
		if st := status.Convert(err); st.Code() != codes.Internal || st.Message() != "panic in "+full+": "+want {
			t.Errorf("%s: %v", method, err)
		}
		p := <-told
		if p.method != full || (p.value == nil) != (method == "Goexit") || !strings.Contains(p.stack, "client_test.go") {
			t.Errorf("%s: told of %q, %v, %s", method, p.method, p.value, p.stack)
		}
	}
	if _, err := callText(ctx, client, "Release", ""); err != nil {
		t.Errorf("after the panics: %v", err)
	}
	if err := <-held; err != nil {
		t.Errorf("the request that waited: %v", err)
	}
	// The last answer is here before it is noted down there that it has left.
	eventually(t, "no request is open", func() bool { return len(s.Open()) == 0 })
}

// badError panics when it is asked for its words.
type badError struct{}

func (badError) Error() string { panic("no words") }
