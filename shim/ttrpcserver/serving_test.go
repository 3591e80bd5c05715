package ttrpcserver

// What the tests share: a running server, the methods that it and ttrpc's own
// server are given, and a client that speaks in frames.

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const patience = 30 * time.Second // for what happens at once on an idle machine

const testService = "cleat.test.v1.Echo"

// echoMethod is a method of the test service: a text comes, a text goes.
type echoMethod func(ctx context.Context, in string) (string, error)

// echoMethods are the methods that both servers are compared with. A release
// ends one Hold.
func echoMethods() map[string]echoMethod {
	release := make(chan struct{})
	fail := func(err error) echoMethod {
		return func(context.Context, string) (string, error) { return "", err }
	}
	return map[string]echoMethod{
		"Echo": func(_ context.Context, in string) (string, error) { return in, nil },
		"Hold": func(ctx context.Context, in string) (string, error) {
			select {
			case <-release:
				return in, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		},
		"Release": func(ctx context.Context, in string) (string, error) {
			select {
			case release <- struct{}{}:
				return in, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		},
		"Metadata": func(ctx context.Context, in string) (string, error) {
			md := MetadataOf(ctx)
			if theirs, ok := ttrpc.GetMetadata(ctx); ok {
				md = Metadata(theirs)
			}
			return fmt.Sprintf("%d %q", len(md), md[in]), nil
		},
		"Deadline": func(ctx context.Context, _ string) (string, error) {
			_, ok := ctx.Deadline()
			return fmt.Sprint(ok), nil
		},
		"UntilDone":    func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		"Plain":        fail(errors.New("a plain error")),
		"NotFound":     fail(fmt.Errorf("task x: %w", errdefs.ErrNotFound)),
		"Precondition": fail(fmt.Errorf("task x: %w", errdefs.ErrFailedPrecondition)),
		"Unavailable":  fail(errdefs.ErrUnavailable),
		"Joined":       fail(errors.Join(errors.New("one"), fmt.Errorf("two: %w", errdefs.ErrAlreadyExists))),
		"Canceled":     fail(context.Canceled),
		"TooLate":      fail(context.DeadlineExceeded),
		"NoFile":       fail(&fs.PathError{Op: "open", Path: "/x", Err: fs.ErrNotExist}),
	}
}

// handlersOf makes our handlers of methods.
func handlersOf(methods map[string]echoMethod) map[string]Handler {
	handlers := make(map[string]Handler)
	for name, do := range methods {
		handlers[name] = func(ctx context.Context, payload []byte) ([]byte, error) {
			var in wrapperspb.StringValue
			if err := proto.Unmarshal(payload, &in); err != nil {
				return nil, err
			}
			out, err := do(ctx, in.Value)
			if err != nil {
				return nil, err
			}
			return proto.Marshal(wrapperspb.String(out))
		}
	}
	return handlers
}

// ttrpcMethodsOf makes ttrpc's methods of them. As in containerd's shim, the
// service itself maps its errors.
func ttrpcMethodsOf(methods map[string]echoMethod) map[string]ttrpc.Method {
	theirs := make(map[string]ttrpc.Method)
	for name, do := range methods {
		theirs[name] = func(ctx context.Context, unmarshal func(any) error) (any, error) {
			var in wrapperspb.StringValue
			if err := unmarshal(&in); err != nil {
				return nil, err
			}
			out, err := do(ctx, in.Value)
			if err != nil {
				return nil, errgrpc.ToGRPC(err)
			}
			return wrapperspb.String(out), nil
		}
	}
	return theirs
}

// socketPath is a path short enough for a socket, whatever the test's name.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ttrpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start serves the test service and what else is given until the test ends.
// That the server ends and leaves nothing open is part of every test.
func start(t testing.TB, o Options, more map[string]Handler) (*Server, string) {
	t.Helper()
	handlers := handlersOf(echoMethods())
	for name, h := range more {
		handlers[name] = h
	}
	s := New(o)
	s.Register(testService, handlers)
	path := socketPath(t)
	serve(t, s, path)
	return s, path
}

func serve(t testing.TB, s *Server, path string) {
	t.Helper()
	l := listen(t, path)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v, open: %+v", err, s.Open())
		}
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
}

// startTheirs serves the test service with ttrpc's own server.
func startTheirs(t testing.TB) string {
	t.Helper()
	s, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	s.Register(testService, ttrpcMethodsOf(echoMethods()))
	path := socketPath(t)
	l := listen(t, path)
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return path
}

// peer is a client that speaks in frames. One goroutine may send while another
// receives.
type peer struct {
	t testing.TB
	*net.UnixConn
	in *bufio.Reader
}

func dial(t testing.TB, path string) *peer {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * patience))
	return &peer{t: t, UnixConn: c, in: bufio.NewReaderSize(c, 64<<10)}
}

// frameOf makes a frame with a true length.
func frameOf(id uint32, kind, flags byte, data []byte) []byte {
	return append(headOf(uint32(len(data)), id, kind, flags), data...)
}

func headOf(length, id uint32, kind, flags byte) []byte {
	f := binary.BigEndian.AppendUint32(nil, length)
	f = binary.BigEndian.AppendUint32(f, id)
	return append(f, kind, flags)
}

// requestOf is a request to a method of the test service.
func requestOf(id uint32, method, text string) []byte {
	return frameOf(id, requestFrame, 0, marshal(&ttrpc.Request{
		Service: testService, Method: method, Payload: marshal(wrapperspb.String(text)),
	}))
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (w *peer) send(frames ...[]byte) {
	w.t.Helper()
	for _, f := range frames {
		if _, err := w.Write(f); err != nil {
			w.t.Fatalf("send: %v", err)
		}
	}
}

// unread is how much memory the kernel holds for what the peer has not read.
func (w *peer) unread() (n int) {
	w.t.Helper()
	raw, err := w.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// readFrame reads one whole frame, or an error at the end.
func (w *peer) readFrame() ([]byte, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, headerSize+int(headerOf(head[:]).length))
	copy(frame, head[:])
	_, err := io.ReadFull(w.in, frame[headerSize:])
	return frame, err
}

// response is an answer taken apart.
type response struct {
	id   uint32
	code codes.Code
	text string // of the answer, or the error's message
}

func (w *peer) receive() response {
	w.t.Helper()
	frame, err := w.readFrame()
	if err != nil {
		w.t.Fatalf("receive: %v", err)
	}
	return decodeResponse(w.t, frame)
}

func decodeResponse(t testing.TB, frame []byte) response {
	t.Helper()
	h := headerOf(frame)
	if h.kind != responseFrame || h.flags != 0 {
		t.Fatalf("not a response: %+v", h)
	}
	var r ttrpc.Response
	var text wrapperspb.StringValue
	if err := errors.Join(proto.Unmarshal(frame[headerSize:], &r), proto.Unmarshal(r.Payload, &text)); err != nil {
		t.Fatalf("response: %v", err)
	}
	if r.Status != nil {
		return response{h.stream, codes.Code(r.Status.Code), r.Status.Message}
	}
	return response{h.stream, codes.OK, text.Value}
}

// expect receives one answer and compares it.
func (w *peer) expect(id uint32, code codes.Code, text string) {
	w.t.Helper()
	if got, want := w.receive(), (response{id, code, text}); got != want {
		w.t.Fatalf("answer %+v, want %+v", got, want)
	}
}

// expectEnd waits for the server to close the connection.
func (w *peer) expectEnd() {
	w.t.Helper()
	if frame, err := w.readFrame(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("want the end, got frame %q, error %v", frame, err)
	}
}

// eventually waits for something that nobody announces.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// expectNothingOpen waits for the server to have no connection and checks that
// nothing is left in its table or its accounts.
func expectNothingOpen(t testing.TB, s *Server) {
	t.Helper()
	eventually(t, "no connections, no requests", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0 && s.open.first == nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != 0 || s.open.last != nil {
		t.Errorf("an empty table counts %d, last %p", s.live, s.open.last)
	}
}

// theConn is the server's side of its only connection.
func theConn(t testing.TB, s *Server) *conn {
	t.Helper()
	var only *conn
	eventually(t, "a connection", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			only = c
		}
		return len(s.conns) == 1
	})
	return only
}

// logged collects what a server logs.
type logged struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newLogged() *logged { return &logged{more: make(chan struct{}, 100)} }

func (l *logged) log(format string, args ...any) {
	l.mu.Lock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *logged) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}
