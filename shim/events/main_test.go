package events

// containerd in the tests: its events service on a real ttrpc server, which is
// stopped and started on one path.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/message"
	"github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

const patience = 20 * time.Second // for what happens at once on an idle machine

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// taken is an event that containerd was given.
type taken struct {
	*types.Envelope
	namespace string // of the metadata
	life      int    // of the containerd that took it
}

// daemon is containerd.
type daemon struct {
	t       testing.TB
	address string
	// answer, if set, is asked for the answer to an event. An event that is
	// answered with an error is not taken.
	answer func(*types.Envelope) error

	mu     sync.Mutex // guards what follows
	server *ttrpc.Server
	lives  int
	events []taken
	asked  int // events that were brought, taken or not
}

// newDaemon returns one that is away.
func newDaemon(t testing.TB) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "events") // short enough for a socket
	must(t, "make folder", err)
	d := &daemon{t: t, address: filepath.Join(dir, "s")}
	t.Cleanup(func() {
		d.crash()
		os.RemoveAll(dir)
	})
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	os.Remove(d.address)
	l, err := net.Listen("unix", d.address)
	must(d.t, "listen", err)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // a killed one leaves its socket
	server, err := ttrpc.NewServer()
	must(d.t, "make server", err)
	d.mu.Lock()
	d.server = server
	d.lives++
	events.RegisterTTRPCEventsService(server, life{d, d.lives})
	d.mu.Unlock()
	go server.Serve(context.Background(), l)
}

// stop ends it once it has answered what it was asked; ttrpc's server may
// overlook a request that has only just come.
func (d *daemon) stop() {
	d.t.Helper()
	must(d.t, "stop", d.take().Shutdown(bounded(d.t)))
}

// crash ends it in the middle of what it does.
func (d *daemon) crash() {
	if s := d.take(); s != nil {
		s.Close()
	}
}

func (d *daemon) take() (s *ttrpc.Server) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, d.server = d.server, nil
	return s
}

// life is a daemon from one start to its end.
type life struct {
	*daemon
	number int
}

// Forward is containerd's.
func (d life) Forward(ctx context.Context, r *events.ForwardRequest) (*emptypb.Empty, error) {
	d.mu.Lock()
	d.asked++
	answer := d.answer
	d.mu.Unlock()
	if answer != nil {
		if err := answer(r.Envelope); err != nil {
			return nil, err
		}
	}
	namespace, _ := ttrpc.GetMetadataValue(ctx, "containerd-namespace-ttrpc")
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil || d.number != d.lives {
		return nil, errTest // a dead one takes nothing
	}
	d.events = append(d.events, taken{r.Envelope, namespace, d.number})
	return &emptypb.Empty{}, nil
}

func (d *daemon) brought() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// topics of what was taken, in order.
func (d *daemon) topics() (topics []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		topics = append(topics, e.Topic)
	}
	return topics
}

// hasTaken waits until exactly these have been taken.
func (d *daemon) hasTaken(topics ...string) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("containerd has taken %d events", len(topics)), func() bool { return len(d.topics()) >= len(topics) })
	if got := d.topics(); !slices.Equal(got, topics) {
		d.t.Fatalf("containerd has taken %q, want %q", got, topics)
	}
}

// record keeps what is logged.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) log(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *record) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (d *daemon) queue() (*Queue, *record) {
	said := new(record)
	q := New(Options{Address: d.address, Namespace: "space", Log: said.log})
	q.idle, q.subscribe = 10*time.Millisecond, time.Millisecond
	return q, said
}

func oom() message.Message { return &message.TaskOOM{ContainerID: "box"} }

// publish queues events with these topics.
func publish(q *Queue, topics ...string) {
	for _, topic := range topics {
		q.Publish(topic, oom())
	}
}

// Pending tells the topics of the events in memory, oldest first.
func (q *Queue) Pending() (topics []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, encoded := range slices.Concat(q.backlog.head, q.backlog.tail) {
		e := new(types.Envelope)
		if err := proto.Unmarshal(encoded, e); err != nil {
			panic(err)
		}
		topics = append(topics, e.Topic)
	}
	return topics
}

// limits are of what a queue keeps in memory.
type limits struct {
	name        string
	head, batch int
}

// limitsOfMemory are the real ones, and small ones, with which most events pass
// through the file.
var limitsOfMemory = []limits{{"in memory", headLimit, batchSize}, {"mostly in a file", 300, 200}, {"each by itself", 0, 1}}

// of gives them to a queue, and a folder for its file.
func (l limits) of(t testing.TB, q *Queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlog.headLimit, q.backlog.batchSize, q.backlog.enough = l.head, l.batch, l.batch
	dir := t.TempDir()
	q.options.Spill = func() (*os.File, error) { return oci.UnnamedFile(dir) }
}

// numbered returns n topics.
func numbered(n int) (topics []string) {
	for i := range n {
		topics = append(topics, fmt.Sprint("/", i))
	}
	return topics
}

// sender tells whether there is one.
func (q *Queue) sender() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sending
}

// goroutines of this package that are under way.
func goroutines() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return strings.Count(string(stacks), "events.(*Queue).send(")
}

var errTest = errors.New("of the test")
