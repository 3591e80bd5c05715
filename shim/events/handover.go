package events

// This file takes what is in the queue to another program of the same process.

import (
	"context"
	"fmt"
	"slices"

	"github.com/cleatrun/cleat/oci/handover"
)

// State is what containerd has not taken: Pending, then Spilled, then Later.
type State struct {
	// Pending events, the oldest first, each an encoded
	// containerd.types.Envelope.
	Pending [][]byte `json:",omitempty"`
	// Spilled are those that are in a file.
	Spilled *Spilled `json:",omitempty"`
	Later   [][]byte `json:",omitempty"`
	// Sent is how many containerd has taken or refused.
	Sent uint64 `json:",omitempty"`
}

// Spilled are events in a file, each after its length in 4 bytes, the lowest
// first.
type Spilled struct {
	File       string // its name in the handover
	Events     int
	Start, End int64 // of them in the file
}

// Hold stops the sending, and waits until containerd has answered for an event
// that is on its way: it must not be sent twice. Events that come are queued. If
// containerd does not answer before ctx ends that is an error. GoOn undoes it.
func (q *Queue) Hold(ctx context.Context) error {
	q.mu.Lock()
	q.held = true
	if !q.sending && !q.backlog.writing {
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
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.sending {
		return fmt.Errorf("events are still being written to a file: %w", context.Cause(ctx))
	}
	return fmt.Errorf("containerd does not take the event that is on its way to it: %w", context.Cause(ctx))
}

// GoOn undoes Hold, also one that has failed, and begins to send what was
// restored.
func (q *Queue) GoOn() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held, q.still = false, nil
	if q.backlog.len() > 0 {
		q.begin()
	}
	q.beginSpilling()
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

// tellStill tells Hold that nothing moves, if that is so. Called with mu held.
func (q *Queue) tellStill() {
	if q.still != nil && !q.sending && !q.backlog.writing {
		close(q.still)
		q.still = nil
	}
}

// State of the queue. It is all that there is to know while it is held.
func (q *Queue) State(files *handover.Files) State {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := &q.backlog
	s := State{Pending: slices.Clone(b.head), Later: slices.Clone(b.tail), Sent: q.sent}
	if b.inFile > 0 {
		s.Spilled = &Spilled{File: files.Add("events", b.file), Events: b.inFile, Start: b.start, End: b.end}
	}
	return s
}

// Restore makes a queue that another program has held. It sends nothing before
// GoOn.
func Restore(o Options, s State, files *handover.Inherited) (*Queue, error) {
	q := New(o)
	q.held, q.sent = true, s.Sent
	b := &q.backlog
	b.head, b.tail = s.Pending, s.Later
	for _, e := range b.head {
		b.headSize += len(e)
	}
	for _, e := range b.tail {
		b.tailSize += len(e)
	}
	if s.Spilled == nil {
		return q, nil
	}
	var err error
	if b.file, err = files.Take(s.Spilled.File); err != nil {
		return nil, fmt.Errorf("restore events: %w", err)
	}
	b.inFile, b.start, b.end = s.Spilled.Events, s.Spilled.Start, s.Spilled.End
	if b.inFile <= 0 || b.start < 0 || b.start >= b.end {
		return nil, fmt.Errorf("restore events: %d of them from %d to %d of a file", b.inFile, b.start, b.end)
	}
	return q, nil
}
