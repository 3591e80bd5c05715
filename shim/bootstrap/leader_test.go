package bootstrap

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// lead listens in the place of a group's daemon.
func (n *node) lead(group string) *net.UnixListener {
	n.t.Helper()
	if err := os.MkdirAll(n.sockets, 0o700); err != nil {
		n.t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket(group), Net: "unix"})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	return l
}

// each calls serve for every connection until the listener closes.
func each(l net.Listener, serve func(net.Conn)) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
		}
	}()
}

type oldService struct{ taskv2.TTRPCTaskService }

func (oldService) Connect(context.Context, *taskv2.ConnectRequest) (*taskv2.ConnectResponse, error) {
	return &taskv2.ConnectResponse{ShimPid: 1}, nil
}

// After an upgrade of the binary, a pod may still be served by a process of
// containerd 1.7, which knows version 2 alone.
func TestAJoiningStartAnswersTheVersionOfTheRunningLeader(t *testing.T) {
	n := newNode(t)
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	taskv2.RegisterTTRPCTaskService(server, oldService{})
	go server.Serve(context.Background(), n.lead("old"))
	defer server.Close()
	n.bundle("old", nil)
	want := &bootapi.BootstrapResult{Version: 2, Protocol: "ttrpc", Address: "unix://" + n.socket("old")}
	if got := n.mustStart("old", n.params("old")); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if pids := n.processes(); len(pids) != 0 {
		t.Errorf("a second daemon was started: %v", pids)
	}
}

// What is asked for is answered where it is served, and else the other version. One
// of containerd's own shims serves the one or the other, cleat both.
func TestALeaderIsAskedForTheVersionThatTheCallerWants(t *testing.T) {
	n := newNode(t)
	for name, c := range map[string]struct {
		serves []int
		asked  int
		want   int
	}{
		"old":            {[]int{2}, 3, 2},
		"old-for-old":    {[]int{2}, 2, 2},
		"new":            {[]int{3}, 3, 3},
		"new-for-old":    {[]int{3}, 2, 3},
		"either":         {[]int{2, 3}, 3, 3},
		"either-for-old": {[]int{2, 3}, 2, 2},
	} {
		server, err := ttrpc.NewServer()
		if err != nil {
			t.Fatal(err)
		}
		for _, version := range c.serves {
			if version == 2 {
				taskv2.RegisterTTRPCTaskService(server, oldService{})
			} else {
				task.RegisterTTRPCTaskService(server, newService{})
			}
		}
		go server.Serve(context.Background(), n.lead(name))
		if got, err := askLeader(n.socket(name), namespace, name, c.asked); err != nil || got != c.want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, c.want)
		}
		server.Close()
	}
}

type newService struct{ task.TTRPCTaskService }

func (newService) Connect(context.Context, *task.ConnectRequest) (*task.ConnectResponse, error) {
	return &task.ConnectResponse{ShimPid: 1}, nil
}

// A leader that has decided to end may still accept: its socket is removed
// and its listener closed a moment later.
func TestAStartThatMeetsAnEndingLeaderMakesItsOwn(t *testing.T) {
	for name, end := range map[string]func(l *net.UnixListener){
		"removing its socket": func(l *net.UnixListener) { l.Close() },
		"leaving its socket":  func(l *net.UnixListener) { l.SetUnlinkOnClose(false); l.Close() },
	} {
		n := newNode(t)
		l := n.lead("c1")
		var met atomic.Int32
		each(l, func(conn net.Conn) {
			conn.Close()
			if met.Add(1) == 3 {
				end(l)
			}
		})
		n.bundle("c1", nil)
		r := n.mustStart("c1", n.params("c1"))
		if pids := n.processes(); len(pids) != 1 || n.leader(r.Address) != pids[0] {
			t.Errorf("%s: daemons %v", name, pids)
		}
		if met.Load() != 3 {
			t.Errorf("%s: met %d times", name, met.Load())
		}
	}
}

// The same with connections that were never accepted: they end when the
// listener closes.
func TestAStartInTheBacklogOfAnEndingLeaderMakesItsOwn(t *testing.T) {
	n := newNode(t)
	l := n.lead("c1")
	n.bundle("c1", nil)
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// The connection is there when the listener is readable.
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}, 20000)
		if ready != 1 {
			t.Errorf("no connection: %v", err)
		}
		file.Close()
		l.Close()
	}()
	r := n.mustStart("c1", n.params("c1"))
	<-ended
	n.leader(r.Address)
}

func TestALeaderThatNeverEndsNorAnswersIsAnError(t *testing.T) {
	n := newNode(t)
	each(n.lead("c1"), func(conn net.Conn) { conn.Close() })
	n.bundle("c1", nil)
	n.mustFail("c1", n.marshal(n.params("c1")), "accepts connections", n.socket("c1"))
}

// A leader that is frozen, or on a node too busy to answer, is still the
// group's: a second one beside it would be worse than waiting.
func TestALeaderThatIsSlowIsJoined(t *testing.T) {
	n := newNode(t)
	n.bundle("c1", nil)
	n.bundle("c2", map[string]string{"io.containerd.runc.v2.group": "c1"})
	first := n.mustStart("c1", n.params("c1"))
	pid := n.leader(first.Address)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	second := n.mustStart("c2", n.params("c2"))
	if took := time.Since(begin); took < askLimit || took > askLimit+5*time.Second {
		t.Errorf("took %s", took)
	}
	if !proto.Equal(first, second) {
		t.Errorf("first %v, second %v", first, second)
	}
	if pids := n.processes(); len(pids) != 1 {
		t.Errorf("daemons %v", pids)
	}
}

func TestALeaderThatSpeaksSomethingElseIsAnError(t *testing.T) {
	n := newNode(t)
	each(n.lead("c1"), func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	n.bundle("c1", nil)
	n.mustFail("c1", n.marshal(n.params("c1")), "not ttrpc")
}

func TestConnectRequestIsWhatTtrpcWouldSend(t *testing.T) {
	frame := connectRequest("ns", "c1", 3)
	if got := binary.BigEndian.Uint32(frame); int(got) != len(frame)-frameHeader {
		t.Errorf("length %d of %d", got, len(frame)-frameHeader)
	}
	var r ttrpc.Request
	if err := proto.Unmarshal(frame[frameHeader:], &r); err != nil {
		t.Fatal(err)
	}
	payload, err := proto.Marshal(&task.ConnectRequest{ID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	want := &ttrpc.Request{
		Service: "containerd.task.v3.Task", Method: "Connect", Payload: payload, TimeoutNano: askLimit.Nanoseconds(),
		Metadata: []*ttrpc.KeyValue{{Key: "containerd-namespace-ttrpc", Value: "ns"}, {Key: JoinKey, Value: "c1"}},
	}
	if !proto.Equal(&r, want) {
		t.Errorf("got %v\nwant %v", &r, want)
	}
}

// An owner that ends removes its own socket, not that of its successor, which can
// have the same path and even the same inode number.
func TestRemoveLeavesTheSocketOfASuccessor(t *testing.T) {
	n := newNode(t)
	l := n.lead("c1")
	d := Daemon{SocketPath: n.socket("c1")}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := os.Remove(d.SocketPath); err != nil {
		t.Fatal(err)
	}
	successor := n.lead("c1")
	if err := d.RemoveSocket(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", d.SocketPath); err != nil {
		t.Errorf("the successor's socket is gone: %v", err)
	}
	successor.SetUnlinkOnClose(false)
	successor.Close()
	for range 2 { // the second finds nothing
		if err := d.RemoveSocket(); err != nil {
			t.Error(err)
		}
	}
	if files := n.files(n.sockets); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

func TestALockIsWaitedForAndItsFileGoesAway(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	first, err := lockSocket(socket, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockSocket(socket, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "held by somebody else") {
		t.Errorf("a lock that is taken: %v", err)
	}
	var inside atomic.Int32
	done := make(chan error)
	for range 20 {
		go func() {
			l, err := lockSocket(socket, 20*time.Second)
			if err == nil {
				if inside.Add(1) != 1 {
					err = errors.New("two hold the lock")
				}
				inside.Add(-1)
				l.release()
			}
			done <- err
		}()
	}
	first.release()
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(socket + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file: %v", err)
	}
}
