package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	events "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Sink takes the events of shims in the place of a containerd: in order, and
// so that a test can say when it is there and how fast it is.
type Sink struct {
	Events

	path   string
	mu     sync.Mutex // guards server
	server *ttrpc.Server

	// pass, if set, hands an event on first. One that it cannot hand on is not
	// taken.
	pass func(context.Context, *events.ForwardRequest) error
}

// NewSink makes a sink for the socket at path. Nobody listens there yet.
func NewSink(path string) *Sink {
	return &Sink{Events: Events{grown: make(chan struct{})}, path: path}
}

// Address is what a shim gets as TTRPC_ADDRESS.
func (s *Sink) Address() string { return s.path }

// Listen begins to take events, for the first time or again after Stop.
func (s *Sink) Listen() error {
	listener, err := net.Listen("unix", s.path)
	if err != nil {
		return fmt.Errorf("listen for events: %w", err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		listener.Close()
		return err
	}
	events.RegisterTTRPCEventsService(server, s)
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	go server.Serve(context.Background(), listener) // ends by Stop
	return nil
}

// Stop goes away as a containerd does that is killed: connections end. The event
// that was taken last may be sent again, for ttrpc's client makes an error of an
// answer that comes with the end of its connection.
func (s *Sink) Stop() error {
	s.mu.Lock()
	server := s.server
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	if gone := os.Remove(s.path); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// Forward is the RPC by which shims hand an event over.
func (s *Sink) Forward(ctx context.Context, r *events.ForwardRequest) (*emptypb.Empty, error) {
	if s.pass != nil {
		if err := s.pass(ctx, r); err != nil {
			return nil, err
		}
	}
	s.add(decode(r.Envelope.Topic, r.Envelope.Event))
	return &emptypb.Empty{}, nil
}
