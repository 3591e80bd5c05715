package events

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/message"
	eventsmessages "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestEventIsWhatContainerdExpects(t *testing.T) {
	d := newDaemon(t)
	d.start()
	q := New(Options{Address: "unix://" + d.address, Namespace: "space", Log: t.Logf})
	before := time.Now()
	q.Publish("/tasks/exit", &message.TaskExit{ContainerID: "box", ID: "exec", Pid: 7, ExitStatus: 3})
	d.hasTaken("/tasks/exit")
	e := d.events[0]
	if e.Namespace != "space" || e.namespace != "space" {
		t.Errorf("namespace %q, in the metadata %q", e.Namespace, e.namespace)
	}
	if at := e.Timestamp.AsTime(); at.Before(before) || at.After(time.Now()) {
		t.Errorf("it happened at %s", at)
	}
	// containerd's typeurl package has no prefix in type URLs.
	if e.Event.TypeUrl != "containerd.events.TaskExit" {
		t.Errorf("type %q", e.Event.TypeUrl)
	}
	var exit eventsmessages.TaskExit
	must(t, "read event", proto.Unmarshal(e.Event.Value, &exit))
	if exit.ContainerID != "box" || exit.ID != "exec" || exit.Pid != 7 || exit.ExitStatus != 3 {
		t.Errorf("event %v", &exit)
	}
}

// Stock's queue tries five times in 15 seconds and then drops the event; what is
// sent again comes after what happened later.
func TestEventsAreKeptInOrderWhileContainerdIsAway(t *testing.T) {
	for _, c := range []struct {
		name string
		away func(d *daemon)
	}{
		{"has never been", func(*daemon) {}},
		{"has left its socket", func(d *daemon) { d.start(); d.crash() }},
		{"has gone in good order", func(d *daemon) { d.start(); d.stop() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDaemon(t)
			c.away(d)
			q, said := d.queue()
			topics := numbered(20)
			publish(q, topics...)
			eventually(t, "several attempts", func() bool { return said.count("") >= 1 })
			if got := q.Pending(); !slices.Equal(got, topics) {
				t.Errorf("pending %q", got)
			}
			d.start()
			d.hasTaken(topics...) // without a kick: it tries by itself
			must(t, "drain", q.Drain(bounded(t), patience))
			if said.count("is kept until containerd takes it") != 1 || said.count("") != 1 {
				t.Errorf("one absence was told of by %q", said.lines)
			}
		})
	}
}

func TestKickDeliversAtOnce(t *testing.T) {
	d := newDaemon(t)
	q, said := d.queue()
	q.firstPause = time.Hour // so that nothing else does
	publish(q, "/a", "/b")
	eventually(t, "the first attempt has failed", func() bool { return said.count("kept") == 1 })
	d.start()
	q.Kick()
	d.hasTaken("/a", "/b")
	// A kick that nobody waited for makes one more attempt, and no more.
	must(t, "drain", q.Drain(bounded(t), patience))
	q.Kick()
	publish(q, "/c")
	d.hasTaken("/a", "/b", "/c")
}

// A containerd that comes back on a loaded host has much to do.
func TestDrainGoesOnWhileContainerdTakesEvents(t *testing.T) {
	d := newDaemon(t)
	d.answer = func(*types.Envelope) error {
		time.Sleep(100 * time.Millisecond) // it is slow
		return nil
	}
	d.start()
	q, _ := d.queue()
	for range 12 {
		publish(q, "/a")
	}
	must(t, "drain", q.Drain(bounded(t), time.Second))
	if _, pending := q.Counters(); pending != 0 {
		t.Errorf("%d events are pending", pending)
	}
}

func TestDrainMakesAnAttemptAtOnce(t *testing.T) {
	d := newDaemon(t)
	q, said := d.queue()
	q.firstPause = time.Hour
	publish(q, "/a")
	eventually(t, "the first attempt has failed", func() bool { return said.count("kept") == 1 })
	d.start()
	must(t, "drain", q.Drain(bounded(t), patience))
	d.hasTaken("/a")
}

// containerd tells an event to those who listen at that moment. After it was away
// that is nobody for a while, and dockerd never asks again.
func TestKeptEventsWaitForSubscribers(t *testing.T) {
	d := newDaemon(t)
	q, said := d.queue()
	q.subscribe = time.Hour
	publish(q, "/a")
	eventually(t, "the first attempt has failed", func() bool { return said.count("kept") == 1 })
	l, err := net.Listen("unix", d.address)
	must(t, "listen", err)
	q.Kick()
	conn, err := l.Accept()
	must(t, "accept", err)
	must(t, "set a limit", conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the event is sent at once (%d, %v)", n, err)
	}
	must(t, "close", errors.Join(conn.Close(), l.Close()))

	// Who ends waits for nobody.
	d.start()
	must(t, "drain", q.Drain(bounded(t), patience))
	d.hasTaken("/a")
	publish(q, "/b") // containerd was not away
	d.hasTaken("/a", "/b")
}

// Moby shows containers wrongly that exit twice (#4769).
func TestEventsAreDeliveredOnceAndInOrderAcrossRestarts(t *testing.T) {
	for _, limits := range limitsOfMemory {
		t.Run(limits.name, func(t *testing.T) { restartAgainAndAgain(t, limits) })
	}
}

func restartAgainAndAgain(t *testing.T, l limits) {
	d := newDaemon(t)
	q, _ := d.queue()
	l.of(t, q)
	q.firstPause = time.Millisecond
	const publishers, each = 4, 100
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for n := range each {
				publish(q, fmt.Sprintf("/%d/%d", p, n))
				if n%25 == 0 {
					eventually(t, "containerd takes events", func() bool { return len(d.topics()) > n })
				}
			}
		})
	}
	for range 8 {
		d.start()
		before := len(d.topics())
		eventually(t, "containerd takes events", func() bool { return len(d.topics()) > before || len(d.topics()) == publishers*each })
		d.stop()
	}
	d.start()
	all.Wait()
	must(t, "drain", q.Drain(bounded(t), patience))
	next, seen, lives := map[int]int{}, 0, map[string]int{}
	for _, e := range d.events {
		var p, n int
		fmt.Sscanf(e.Topic, "/%d/%d", &p, &n)
		// Only the next containerd may get what the last one was asked to take.
		if life, again := lives[e.Topic]; again && life < e.life && n == next[p]-1 {
			continue
		}
		if n != next[p] {
			t.Fatalf("%s came, but %d is next of that publisher", e.Topic, next[p])
		}
		lives[e.Topic], next[p] = e.life, n+1
		seen++
	}
	if seen != publishers*each {
		t.Errorf("%d events came of %d", seen, publishers*each)
	}
}

// A containerd that dies over an event may have taken it or not. It is brought
// to the next one, which cannot have it.
func TestEventThatWasNotAnsweredIsBroughtToTheNextContainerd(t *testing.T) {
	d := newDaemon(t)
	reached, hang := make(chan struct{}, 1), make(chan struct{})
	d.answer = func(*types.Envelope) error {
		reached <- struct{}{}
		<-hang
		return errTest
	}
	d.start()
	q, _ := d.queue()
	publish(q, "/a", "/b")
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("not in time: the event is brought")
	}
	// Nothing waits for a containerd that hangs, but Drain, which is bounded.
	publish(q, "/c")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := q.Drain(ctx, patience); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "3 events") {
		t.Errorf("draining into a containerd that hangs: %v", err)
	}
	if err := q.Drain(bounded(t), 20*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "3 events") {
		t.Errorf("draining into a containerd that takes nothing: %v", err)
	}
	d.mu.Lock()
	d.answer = nil
	d.mu.Unlock()
	d.crash()
	close(hang)
	d.start()
	q.Kick()
	d.hasTaken("/a", "/b", "/c")
}

// An event that containerd will never take must not hold up the others; any
// other error may be over the next time.
func TestOnlyEventsThatContainerdRefusesAreDropped(t *testing.T) {
	for _, c := range []struct {
		err     error
		refused bool
	}{
		{errgrpc.ToGRPC(fmt.Errorf("topic: %w", errdefs.ErrInvalidArgument)), true},
		{status.Error(codes.Unimplemented, "method Forward"), true},
		{errTest, false}, // Unknown
		{status.Error(codes.Internal, "panic"), false},
		{status.Error(codes.Unavailable, "starting"), false},
		{status.Error(codes.ResourceExhausted, "busy"), false},
		{status.Error(codes.DeadlineExceeded, "slow"), false},
		{status.Error(codes.Canceled, "ending"), false},
		{errgrpc.ToGRPC(errdefs.ErrNotFound), false},
	} {
		t.Run(status.Code(c.err).String(), func(t *testing.T) {
			d := newDaemon(t)
			bad := 2 // times that it fails
			d.answer = func(e *types.Envelope) error {
				if e.Topic == "/bad" && bad > 0 {
					bad--
					return c.err
				}
				return nil
			}
			d.start()
			q, said := d.queue()
			publish(q, "/before", "/bad", "/after")
			must(t, "drain", q.Drain(bounded(t), patience))
			want := []string{"/before", "/bad", "/after"}
			brought := 5
			if c.refused {
				want = []string{"/before", "/after"}
				brought = 3
			}
			d.hasTaken(want...)
			if n := d.brought(); n != brought {
				t.Errorf("%d attempts, want %d", n, brought)
			}
			if n := said.count("/bad is not wanted by containerd"); n != 0 && !c.refused || n != 1 && c.refused {
				t.Errorf("said %q", said.lines)
			}
		})
	}
}

// At idle a shim has no connection to containerd, and no goroutine.
func TestSenderEndsWhenThereIsNothingToSend(t *testing.T) {
	d := newDaemon(t)
	d.start()
	q, _ := d.queue()
	for range 3 {
		before := len(d.topics())
		publish(q, "/a")
		eventually(t, "the event is taken", func() bool { return len(d.topics()) == before+1 })
		eventually(t, "the sender ends", func() bool { return !q.sender() && goroutines() == 0 })
		eventually(t, "its connection ends", func() bool { return connections(t, d.address) == 0 })
	}
}

// connections counts the ends of connections that a listening socket has given.
func connections(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/unix")
	must(t, "list sockets", err)
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(strings.TrimSpace(line), " "+path) {
			n++
		}
	}
	return n - 1 // the listening one
}

// An event that comes in the moment in which the sender ends must not wait for
// the one after it.
func TestNoEventIsForgottenWhileTheSenderEnds(t *testing.T) {
	d := newDaemon(t)
	d.start()
	q, _ := d.queue()
	q.idle = time.Microsecond
	const events = 500
	for i := range events {
		publish(q, fmt.Sprint("/", i))
		must(t, "drain", q.Drain(bounded(t), patience))
	}
	d.hasTaken(numbered(events)...)
}

func TestDrainIsBounded(t *testing.T) {
	d := newDaemon(t)
	q, _ := d.queue()
	must(t, "drain what is empty", q.Drain(context.Background(), patience))
	publish(q, "/a", "/b")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := q.Drain(ctx, patience)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "2 events") {
		t.Errorf("error %v", err)
	}
	// Any number may wait, and one that has given up takes nothing with it.
	const waiters = 3
	drained := make(chan error, waiters)
	for range waiters {
		go func() { drained <- q.Drain(bounded(t), patience) }()
	}
	d.start()
	for range waiters {
		must(t, "drain", <-drained)
	}
	d.hasTaken("/a", "/b")
}

// CRI-O starts shims without an address: events then go to the log, and nothing
// waits for anybody.
func TestWithoutAnAddressEventsAreLogged(t *testing.T) {
	var said record
	q := New(Options{Namespace: "space", Log: said.log})
	publish(q, "/tasks/oom")
	if said.count("/tasks/oom") != 1 || said.count("box") != 1 {
		t.Errorf("said %q", said.lines)
	}
	if len(q.Pending()) != 0 || q.sender() {
		t.Errorf("pending %q, and sending is %t", q.Pending(), q.sender())
	}
	must(t, "drain", q.Drain(bounded(t), patience))
}

// Something else on the path must not end the sender.
func TestPeerThatIsNotContainerdIsTriedAgain(t *testing.T) {
	d := newDaemon(t)
	l, err := net.Listen("unix", d.address)
	must(t, "listen", err)
	served := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close()
			served <- struct{}{}
		}
	}()
	q, _ := d.queue()
	publish(q, "/a")
	for range 3 {
		select {
		case <-served:
		case <-time.After(patience):
			t.Fatal("not in time: another attempt")
		}
	}
	l.Close()
	d.start()
	q.Kick()
	d.hasTaken("/a")
}
