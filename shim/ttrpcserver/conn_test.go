package ttrpcserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

func TestDroppedConnectionEndsTheContextsOnly(t *testing.T) {
	goOn := make(chan struct{})
	ended := make(chan error, 2)
	s, path := start(t, Options{Log: t.Logf}, map[string]Handler{
		"Stubborn": func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			<-goOn
			return nil, nil
		},
	})
	w := dial(t, path)
	w.send(requestOf(1, "Stubborn", ""), requestOf(3, "Stubborn", ""))
	eventually(t, "two requests run", func() bool { return len(s.Open()) == 2 })
	w.Close()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("context: %v", err)
		}
	}
	// The handlers go on, and can be seen to.
	if open := s.Open(); len(open) != 2 || !open[0].Dropped || open[0].Stream != 1 || open[1].Stream != 3 {
		t.Errorf("open after the drop: %+v", open)
	}
	close(goOn)
	expectNothingOpen(t, s)
}

// A start that takes an answer for a sign of life would hand out the address of
// a shim that is about to end.
func TestHandlerCanDropTheConnectionInsteadOfAnswering(t *testing.T) {
	s, path := start(t, Options{Log: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }}, map[string]Handler{
		"Drop": func(context.Context, []byte) ([]byte, error) { return nil, ErrDrop },
	})
	w := dial(t, path)
	w.send(requestOf(1, "Drop", ""))
	if n, err := w.in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v, want the end of the connection and nothing before", n, err)
	}
	expectNothingOpen(t, s)
}

func TestConnectionDroppedInsideAFrameLeavesNothing(t *testing.T) {
	s, path := start(t, Options{Log: func(format string, args ...any) { t.Errorf("logged: "+format, args...) }}, nil)
	whole := requestOf(1, "Echo", strings.Repeat("x", 10000))
	for _, n := range []int{0, 1, 9, 10, 11, 4096, len(whole) - 1} {
		w := dial(t, path)
		w.send(whole[:n])
		if n > 0 {
			// Only what has been read can be lost.
			c := theConn(t, s)
			w.CloseWrite()
			w.expectEnd()
			<-c.ctx.Done()
		}
		w.Close()
		expectNothingOpen(t, s)
	}
	w := dial(t, path)
	theConn(t, s)
	w.send(headOf(1<<31, 1, requestFrame, 0), make([]byte, 100000))
	w.Close()
	expectNothingOpen(t, s)
}

// A peer that sends and never reads must neither hold up other connections nor
// make the server keep all that it could ask for.
func TestPeerThatReadsNoAnswersStopsOnlyItself(t *testing.T) {
	s, path := start(t, Options{}, nil)
	w := dial(t, path)
	c := theConn(t, s)
	const requests = 20000
	text := strings.Repeat("x", 4000)
	sent := make(chan error, 1)
	go func() {
		for i := range uint32(requests) {
			if _, err := w.Write(requestOf(2*i+1, "Echo", text)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	debt := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.owed
	}
	eventually(t, "the server has had enough", func() bool { return debt() > maxOwed })

	other := connectClient(t, path)
	for range 100 {
		if _, err := callText(patient(t), other, "Echo", "quick"); err != nil {
			t.Fatalf("another connection: %v", err)
		}
	}
	// What was taken before it had enough, at most: the requests of one chunk
	// and those whose handlers had not answered when the last was counted.
	if owed, most := debt(), 2*maxOwed; owed > most {
		t.Errorf("%d bytes wait for a peer that reads nothing, more than %d", owed, most)
	}
	select {
	case err := <-sent:
		t.Fatalf("everything was taken from a peer that reads nothing (%v)", err)
	default:
	}
	if open := s.Open(); !open[0].Answered {
		t.Errorf("what waits is not shown as answered: %+v", open[0])
	}

	// It reads after all: nothing is missing.
	seen := make([]bool, requests)
	for range requests {
		r := w.receive()
		if i := r.id / 2; r.code != codes.OK || r.text != text || seen[i] {
			t.Fatalf("answer %d: %v, %d bytes, seen before: %v", r.id, r.code, len(r.text), seen[i])
		}
		seen[r.id/2] = true
	}
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
	if owed := debt(); owed != 0 {
		eventually(t, "nothing is owed", func() bool { return debt() == 0 })
	}
}

func TestPeerThatReadsNoAnswersAndGoesLeavesNothing(t *testing.T) {
	s, path := start(t, Options{}, nil)
	w := dial(t, path)
	c := theConn(t, s)
	text := strings.Repeat("x", 100000)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for id := uint32(1); ; id += 2 {
			if _, err := w.Write(requestOf(id, "Echo", text)); err != nil {
				return
			}
		}
	}()
	eventually(t, "the server has had enough", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.owed > maxOwed
	})
	w.Close()
	<-sent
	expectNothingOpen(t, s)
}

// Shutdown's answer must have left before the process ends.
func TestCloseLetsAnswersLeaveAndTakesNothingNew(t *testing.T) {
	holding, release := make(chan struct{}, 1), make(chan struct{})
	s := New(Options{})
	s.Register(testService, map[string]Handler{
		"Hold": func(context.Context, []byte) ([]byte, error) {
			holding <- struct{}{}
			<-release
			return nil, nil
		},
		"Echo": func(context.Context, []byte) ([]byte, error) { t.Error("a new request was taken"); return nil, nil },
	})
	path := socketPath(t)
	l := listen(t, path)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	w, idle := dial(t, path), dial(t, path)
	w.send(requestOf(1, "Hold", ""))
	<-holding
	eventually(t, "two connections", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 2 })
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- s.Close(context.Background()) }()
	}
	<-s.closed
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("a connection was accepted")
	}
	w.send(requestOf(3, "Echo", ""))
	select {
	case err := <-closed:
		t.Fatalf("closed with a request in flight: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	w.expect(1, codes.OK, "")
	w.expectEnd()
	idle.expectEnd()
	for range 2 {
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := s.Serve(listen(t, path)); !errors.Is(err, ErrClosed) {
		t.Errorf("serve after close: %v", err)
	}
	expectNothingOpen(t, s)
}

func TestCloseIsBoundedByItsContext(t *testing.T) {
	for _, c := range []struct{ name, method string }{
		{"a handler that goes on", "Stubborn"},
		{"a peer that does not read", "Large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			goOn, running := make(chan struct{}), make(chan struct{}, 1)
			s := New(Options{})
			s.Register(testService, map[string]Handler{
				"Stubborn": func(context.Context, []byte) ([]byte, error) {
					running <- struct{}{}
					<-goOn
					return nil, nil
				},
				"Large": func(context.Context, []byte) ([]byte, error) {
					running <- struct{}{}
					return make([]byte, 2<<20), nil
				},
			})
			path := socketPath(t)
			served := make(chan error, 1)
			l := listen(t, path)
			go func() { served <- s.Serve(l) }()
			w := dial(t, path)
			w.send(requestOf(1, c.method, ""))
			<-running
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			err := s.Close(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 requests not answered") {
				t.Errorf("close: %v", err)
			}
			<-served
			w.expectEnd()
			close(goOn)
			expectNothingOpen(t, s)
		})
	}
}

func TestOnConnectIsCalledForEachConnection(t *testing.T) {
	var connects atomic.Int32
	_, path := start(t, Options{OnConnect: func() { connects.Add(1) }}, nil)
	for i := range int32(5) {
		if _, err := callText(patient(t), connectClient(t, path), "Echo", ""); err != nil {
			t.Fatal(err)
		}
		if n := connects.Load(); n != i+1 {
			t.Errorf("%d calls after %d connections", n, i+1)
		}
	}
}

func TestRegisteringAServiceTwicePanics(t *testing.T) {
	s := New(Options{})
	s.Register("a", nil)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.Register("a", nil)
}

// abstract is a socket without a file, so without permissions.
func abstract(t *testing.T) string {
	return "@" + socketPath(t)
}

func TestPeersOfOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	var connects atomic.Int32
	log := newLogged()
	s := New(Options{Log: log.log, OnConnect: func() { connects.Add(1) }})
	s.Register(testService, handlersOf(echoMethods()))
	path := abstract(t)
	serve(t, s, path)

	read := make(chan error, 1)
	go func() {
		// For this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			read <- errno
			return
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			read <- err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		c.Write(requestOf(1, "Echo", "not for you")) // may come too late
		if n, _ := c.Read(make([]byte, 100)); n > 0 {
			read <- errors.New("it was answered")
			return
		}
		read <- nil
	}()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	<-log.more
	if lines := log.all(); len(lines) != 1 || !strings.HasPrefix(lines[0], "connection refused: peer is uid 65534 (pid ") {
		t.Errorf("logged %q", lines)
	}
	if n := connects.Load(); n != 0 {
		t.Errorf("%d connects", n)
	}
	if _, err := callText(patient(t), connectClient(t, path), "Echo", ""); err != nil {
		t.Errorf("the same user: %v", err)
	}
}

// Out of file descriptors, a server must neither stop serving nor burn the CPU.
func TestRunningOutOfFilesIsWaitedOut(t *testing.T) {
	log := newLogged()
	s := New(Options{Log: log.log})
	s.Register(testService, handlersOf(echoMethods()))
	path := socketPath(t)
	serve(t, s, path)
	before := connectClient(t, path)
	if _, err := callText(patient(t), before, "Echo", ""); err != nil {
		t.Fatal(err)
	}

	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "client")
	defer file.Close()
	restore := useUpFiles(t)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	<-log.more
	var from, to unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &from)
	<-time.After(200 * time.Millisecond) // what is measured
	unix.Getrusage(unix.RUSAGE_SELF, &to)
	if used := time.Duration(to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano()); used > 50*time.Millisecond {
		t.Errorf("%v of CPU in 200 ms of waiting", used)
	}
	if _, err := callText(patient(t), before, "Echo", ""); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	if lines := log.all(); len(lines) != 1 || !strings.Contains(lines[0], "too many open files") {
		t.Errorf("logged %q", lines)
	}

	restore()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	request := requestOf(1, "Echo", "waited")
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1000)
	n, err := conn.Read(answer)
	if err != nil || !bytes.Contains(answer[:n], []byte("waited")) {
		t.Errorf("answer %q, %v", answer[:n], err)
	}
	if lines := log.all(); len(lines) != 2 || !strings.HasSuffix(lines[1], "again") {
		t.Errorf("logged %q", lines)
	}
}

// useUpFiles leaves no descriptor until it is undone.
func useUpFiles(t *testing.T) (undo func()) {
	t.Helper()
	free, err := unix.Dup(0) // the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	undo = sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(undo)
	return undo
}

// A shim that was upgraded where no descriptor is left serves as soon as it can.
func TestServingBeginsWithoutADescriptor(t *testing.T) {
	s := New(Options{Log: t.Logf})
	s.Register(testService, handlersOf(echoMethods()))
	path := socketPath(t)
	l := listen(t, path)
	undo := useUpFiles(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	eventually(t, "it serves", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.accepting == 1 })
	undo()
	if out, err := callText(patient(t), connectClient(t, path), "Echo", "there"); err != nil || out != "there" {
		t.Errorf("echo: %q, %v", out, err)
	}
	if err := s.Close(patient(t)); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Errorf("serve: %v", err)
	}
}

// An answer that waits for room needs no descriptor.
func TestAnswerWaitsForRoomWithoutADescriptor(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf}, nil)
	w := dial(t, path)
	text := strings.Repeat("x", 3<<20)
	w.send(requestOf(1, "Echo", "small"))
	w.expect(1, codes.OK, "small")
	defer useUpFiles(t)()
	w.send(requestOf(3, "Echo", text))
	waits := func() bool { open := s.Open(); return len(open) == 1 && open[0].Answered }
	eventually(t, "the answer waits", waits)
	w.expect(3, codes.OK, text)
	w.send(requestOf(5, "Echo", text))
	eventually(t, "the next one waits", waits)
	w.Close() // who waits is gone
	expectNothingOpen(t, s)
}

func TestListenerThatFailsEndsServing(t *testing.T) {
	s := New(Options{})
	l := listen(t, socketPath(t))
	l.Close()
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "accept on ") {
		t.Errorf("serve: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}
