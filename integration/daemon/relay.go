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
)

// Relay stands between the shims and the events service of a containerd with
// Config.Relay, and keeps what every shim has handed over, in order, through all
// of containerd's lives: a subscription ends with each of them. It is away when
// containerd is.
//
// An event is kept when containerd has taken it. The one that a shim handed over
// last before containerd was killed may come once more: see Sink.Stop.
type Relay struct {
	*Events

	// Told, if set before Listen, is called with every event that is kept.
	Told func(Event)

	mu    sync.Mutex
	sinks []*Sink // one for each life of containerd: its shims keep that address
	to    *ttrpc.Client
}

func newRelay() *Relay { return &Relay{Events: &Events{grown: make(chan struct{})}} }

// interpose takes the place of the socket at address, on which a containerd has
// just begun to listen and of which no shim knows yet.
func (r *Relay) interpose(address string) error {
	real := address + "c"
	if err := os.Rename(address, real); err != nil {
		return fmt.Errorf("stand before containerd's events: %w", err)
	}
	conn, err := net.Dial("unix", real)
	if err != nil {
		return fmt.Errorf("stand before containerd's events: %w", err)
	}
	sink := NewSink(address)
	sink.pass = r.pass
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = ttrpc.NewClient(conn)
	r.sinks = append(r.sinks, sink)
	return nil
}

// Listen lets events through, after each Run: first who wants to see them
// subscribes.
func (r *Relay) Listen() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sink := range r.sinks {
		if err := sink.Listen(); err != nil {
			return err
		}
	}
	return nil
}

// stop goes away with containerd.
func (r *Relay) stop() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed error
	for _, sink := range r.sinks {
		failed = errors.Join(failed, sink.Stop())
	}
	if r.to != nil {
		r.to.Close()
		r.to = nil
	}
	return failed
}

// pass hands an event on to containerd, and keeps it.
func (r *Relay) pass(ctx context.Context, request *events.ForwardRequest) error {
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	if to == nil {
		return errors.New("containerd is away")
	}
	if _, err := events.NewTTRPCEventsClient(to).Forward(ctx, request); err != nil {
		return err
	}
	event, message, err := decode(request.Envelope.Topic, request.Envelope.Event)
	r.add(event, message, err)
	if r.Told != nil {
		r.Told(event)
	}
	return nil
}
