package events

// This file takes what is in the queue to another program of the same process.

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
)

// State is what containerd has not taken.
type State struct {
	// Pending events, the oldest first, each an encoded
	// containerd.types.Envelope.
	Pending [][]byte `json:",omitempty"`
	// Sent is how many containerd has taken or refused.
	Sent uint64 `json:",omitempty"`
}

// Hold stops the sending, and waits until containerd has answered for an event
// that is on its way: it must not be sent twice. Events that come are queued. If
// containerd does not answer before ctx ends that is an error. GoOn undoes it.
func (q *Queue) Hold(ctx context.Context) error {
	q.mu.Lock()
	q.held = true
	if !q.sending {
		q.mu.Unlock()
		return nil
	}
	still := make(chan struct{})
	q.still = still
	q.mu.Unlock()
	signal(q.wake)
	signal(q.kick)
	signal(q.hurry)
	select {
	case <-still:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("containerd does not take the event that is on its way to it: %w", context.Cause(ctx))
	}
}

// GoOn undoes Hold, also one that has failed, and begins to send what was
// restored.
func (q *Queue) GoOn() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.still = false, nil
	if len(q.pending) > 0 {
		q.begin()
	}
}

// stops tells the sender whether it has to end, which it then has as far as
// others know.
func (q *Queue) stops() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.held {
		return false
	}
	q.sending = false
	q.tellStill()
	return true
}

// tellStill tells Hold that there is no sender. Called with mu held.
func (q *Queue) tellStill() {
	if q.still != nil {
		close(q.still)
		q.still = nil
	}
}

// State of the queue. It is all that there is to know while it is held.
func (q *Queue) State() (State, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := State{Sent: q.sent}
	for _, e := range q.pending {
		encoded, err := proto.Marshal(e)
		if err != nil {
			return s, fmt.Errorf("event %s: %w", e.Topic, err)
		}
		s.Pending = append(s.Pending, encoded)
	}
	return s, nil
}

// Restore makes a queue that another program has held. It sends nothing before
// GoOn.
func Restore(o Options, s State) (*Queue, error) {
	q := New(o)
	q.held, q.sent = true, s.Sent
	for _, encoded := range s.Pending {
		e := new(types.Envelope)
		if err := proto.Unmarshal(encoded, e); err != nil {
			return nil, fmt.Errorf("restore an event: %w", err)
		}
		q.pending = append(q.pending, e)
	}
	return q, nil
}
