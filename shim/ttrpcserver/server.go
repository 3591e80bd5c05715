// Package ttrpcserver serves unary ttrpc methods on unix sockets. The wire is
// the one of ttrpc's PROTOCOL.md: frames of a ten byte header (length of the
// data, stream id, type, flags) and at most 4 MiB of data; a client's request
// opens a stream of an odd, growing id and one response ends it. ttrpc's own
// client is the peer it is tested with, and its own types are what is compared.
//
// It differs from ttrpc's server in what a long-lived daemon needs. Every
// request that has not been answered stands in one table, with its raw frame,
// until its answer has left: nothing else remembers it, so nothing can be
// forgotten there. A connection costs no goroutine and no buffer while it is
// idle. A connection that drops ends the contexts of its requests, not the
// server's interest in them. An error, a panic or an answer that is too large
// is the matter of one request.
//
// All that a server knows is in plain fields: the table, and for each
// connection the last stream id and the bytes that are not a request yet. Reading
// that is held up and a write that is held up leave these as they are,
// and serve and write, called again, go on from them. That is what a server must offer
// to be handed to another process image with requests in flight.
//
// This file has the server, its services and its end; accept.go how a
// connection comes in, socket.go its socket, conn.go how it is read and ends,
// dispatch.go what a frame leads to, table.go the table and the answers, frame.go
// the bytes, hold.go how all of it is stopped for a moment, handover.go how it gets
// to another process image.
package ttrpcserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("ttrpc server closed")

// ErrDrop, returned by a handler, drops the connection instead of answering: for
// who must not take an answer, of any kind, for a sign of life.
var ErrDrop = errors.New("the connection is dropped on purpose")

// Handler answers one request. The context ends when the caller's timeout
// ends, its connection drops or the handler returns; it carries the caller's
// metadata (MetadataOf). What is done then is the handler's
// decision: nothing is stopped for it, and its answer is dropped when nobody
// is there to take it.
//
// The payload is the encoded request message. It stays valid as long as it is
// referenced and must not be written to. The answer is the encoded response
// message, at most 4 MiB with its envelope; it belongs to the server then and
// must not be written to either.
//
// An error of one of the errdefs classes or of context's is sent under the code
// of its class, any other as Unknown.
type Handler func(ctx context.Context, payload []byte) ([]byte, error)

// Options of a server. Every field may be nil. The functions are called from
// the server's goroutines, several at once, and must not block.
type Options struct {
	// Log takes what an operator should know: refused peers, accept errors,
	// connections that end in an unusual way.
	Log func(format string, args ...any)
	// OnConnect is called for each connection that passed the check of its
	// peer, before any request of it is read.
	OnConnect func()
	// Pace tells how long a method takes; nil means that all are Fast.
	Pace func(service, method string) Pace
	// OnPanic is called with what a handler panicked with and where. The
	// method is in the form "/service/method". A handler that ended its
	// goroutine (runtime.Goexit) is reported with a nil value.
	OnPanic func(method string, value any, stack []byte)
}

// Server answers requests with the handlers registered. Its methods may be
// called concurrently, Register only before the first Serve.
type Server struct {
	options  Options
	uid      uint32 // the only peer that is served
	services map[string]map[string]*method
	closed   chan struct{}  // closed by the first Close
	quiet    chan struct{}  // closed when, after that, every answer has left
	parted   chan struct{}  // closed when, after that, there is no connection
	ends     sync.WaitGroup // accept loops and reading goroutines

	// mu guards what follows and the fields of conn and stream that say so. It
	// is held for a few instructions only, never over a system call.
	mu        sync.Mutex
	closing   bool
	hold      hold
	listeners map[*net.UnixListener]chan struct{} // what their accept loops wait on
	conns     map[*conn]struct{}                  // those not dropped
	restored  []*conn                             // those of conns that nobody watches before Release
	accepted  uint64                              // connections, ever
	answered  uint64                              // requests, ever
	open      streamList                          // the table: every stream not answered, by arrival
	live      int                                 // how many of those have a connection
	paid      sync.Cond                           // a connection's debt of answers is small again
	running   [paces]int                          // handlers
	accepting int                                 // accept loops that are not held up
	still     sync.Cond                           // running, accepting, or a conn's reading or writing is less
}

// Request is one request that has not been answered, for inspection.
type Request struct {
	// Connection counts the accepted connections from 1.
	Connection uint64
	Stream     uint32
	// Service and Method are empty for a frame that was refused.
	Service, Method string
	Age             time.Duration
	// Answered tells that the handler is done, and the answer waits for the
	// peer to read.
	Answered bool
	// Dropped tells that the connection is gone while the handler still runs.
	Dropped bool
}

// method is one entry of a service.
type method struct {
	service, name string
	pace          Pace
	handle        Handler
}

// path is the method's full name.
func (m *method) path() string { return "/" + m.service + "/" + m.name }

// New returns a server without services.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.OnConnect == nil {
		o.OnConnect = func() {}
	}
	if o.Pace == nil {
		o.Pace = func(string, string) Pace { return Fast }
	}
	if o.OnPanic == nil {
		o.OnPanic = func(string, any, []byte) {}
	}
	s := &Server{
		options:   o,
		uid:       uint32(os.Geteuid()),
		services:  make(map[string]map[string]*method),
		closed:    make(chan struct{}),
		quiet:     make(chan struct{}),
		parted:    make(chan struct{}),
		listeners: make(map[*net.UnixListener]chan struct{}),
		conns:     make(map[*conn]struct{}),
	}
	s.paid.L, s.still.L = &s.mu, &s.mu
	return s
}

// Register adds a service under its full name, such as
// "containerd.task.v3.Task". A name that is taken is a programming error and
// panics.
func (s *Server) Register(service string, methods map[string]Handler) {
	if _, taken := s.services[service]; taken {
		panic(fmt.Sprintf("ttrpc service %s is registered twice", service))
	}
	entries := make(map[string]*method, len(methods))
	for name, handle := range methods {
		entries[name] = &method{service: service, name: name, pace: s.options.Pace(service, name), handle: handle}
	}
	s.services[service] = entries
}

// partingTime bounds how long Close waits for peers to close their connections.
// ttrpc's client, told of an answer and of the connection's end at once, may
// make an error of it; so who asked for the end is let go first.
const partingTime = 500 * time.Millisecond

// Close stops accepting and taking requests, waits until those that are open
// have been answered and the answers have left, gives peers a moment to go, and
// closes the connections.
// When the context ends first, the connections are closed as they are and an
// error that wraps the context's is returned. Handlers that still run then are
// told by their contexts and not waited for.
//
// A handler must not wait for Close: its own answer is among those waited for.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.closed)
		s.settle()
		s.still.Broadcast()
	}
	listeners := slices.Collect(maps.Keys(s.listeners))
	s.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}

	var err error
	select {
	case <-s.quiet:
		s.part(ctx)
	case <-ctx.Done():
		s.mu.Lock()
		if s.live > 0 {
			err = fmt.Errorf("close ttrpc server: %d requests not answered: %w", s.live, ctx.Err())
		}
		s.mu.Unlock()
	}

	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drop(net.ErrClosed)
	}
	s.ends.Wait()
	return err
}

// part waits until the peers have closed their connections, within bounds.
func (s *Server) part(ctx context.Context) {
	timer := time.NewTimer(partingTime)
	defer timer.Stop()
	select {
	case <-s.parted:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Counters tells how many connections were accepted and how many requests were
// answered.
func (s *Server) Counters() (connections, requests uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, s.answered
}

// Connected tells how many connections there are.
func (s *Server) Connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Open lists the requests that have not been answered, oldest first.
func (s *Server) Open() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []Request
	for st := s.open.first; st != nil; st = st.next {
		r := Request{
			Connection: st.conn.number,
			Stream:     st.id,
			Age:        time.Since(st.since),
			Answered:   st.answer != nil,
			Dropped:    st.conn.dropped,
		}
		if st.method != nil {
			r.Service, r.Method = st.method.service, st.method.name
		}
		open = append(open, r)
	}
	return open
}
