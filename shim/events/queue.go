// Package events brings what happens to containers to containerd: in order,
// once, and kept until containerd has taken it, however long it is away.
//
// Nothing runs here while there is nothing to send: the sender is started with
// the first event, keeps its connection a moment for the next ones, and ends.
package events

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cleatrun/cleat/shim/message"
)

const (
	// firstPause and lastPause bound the wait between attempts while
	// containerd is away; it doubles. Kick ends it.
	firstPause = 20 * time.Millisecond
	lastPause  = time.Minute
	// subscribe is what containerd's clients get to subscribe to its events
	// again after it was away, before those that were kept are sent: containerd
	// keeps none for them. dockerd, for one, takes up to 3.6 seconds (the longest
	// pause of gRPC in containerd's client, and its jitter), and learns of an
	// exit by the event only.
	subscribe = 4 * time.Second
	// idle is how long the connection is kept for the next event.
	idle = 2 * time.Second
)

// Options of a Queue.
type Options struct {
	// Address is the path of containerd's ttrpc socket. Without one, events
	// are only logged: there are callers of shims that want none.
	Address   string
	Namespace string
	Log       func(format string, args ...any)
	// Spill makes a file without a name for events that are too many to be kept
	// in memory. Without one they are kept there all the same.
	Spill func() (*os.File, error)
}

// Queue holds the events that containerd has not taken yet. Its methods may be
// called concurrently.
type Queue struct {
	options Options
	// firstPause, subscribe and idle are the constants, but in tests.
	firstPause, subscribe, idle time.Duration
	// wake tells the sender of an event, kick that containerd is back, hurry
	// that nobody waits for others any more.
	wake, kick, hurry chan struct{}

	mu      sync.Mutex // guards what follows
	backlog backlog
	sent    uint64
	// unspilled tells that the last attempt to write to the file has failed.
	unspilled bool
	sending   bool            // there is a sender
	empty     []chan struct{} // closed when nothing is pending
	held      bool            // there is to be no sender
	still     chan struct{}   // closed when, after that, there is none
}

// New returns an empty queue.
func New(o Options) *Queue {
	return &Queue{
		options: o, firstPause: firstPause, subscribe: subscribe, idle: idle, backlog: newBacklog(),
		wake: make(chan struct{}, 1), kick: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
	}
}

// Publish queues an event that happens now. It never blocks.
func (q *Queue) Publish(topic string, m message.Message) {
	if q.options.Address == "" {
		q.options.Log("event %s, which nobody wants: %+v", topic, m)
		return
	}
	encoded := (&message.Envelope{
		Timestamp: message.At(time.Now()),
		Namespace: q.options.Namespace,
		Topic:     topic,
		Event:     message.Pack(m),
	}).Append(nil)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlog.push(encoded)
	q.begin()
	q.beginSpilling()
}

// begin sees to it that there is a sender. Called with mu held.
func (q *Queue) begin() {
	switch {
	case q.held:
	case q.sending:
		signal(q.wake)
	default:
		q.sending = true
		go q.send()
	}
}

// Kick makes the sender try at once: there is reason to think that containerd
// is there.
func (q *Queue) Kick() { signal(q.kick) }

// Counters tells how many events containerd has taken or refused, and how many
// wait.
func (q *Queue) Counters() (sent uint64, pending int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent, q.backlog.len()
}

// Drain waits until containerd has taken everything, until it has taken nothing
// for as long as stall, or until ctx ends. A loaded host may need long for many.
func (q *Queue) Drain(ctx context.Context, stall time.Duration) error {
	q.mu.Lock()
	if q.backlog.len() == 0 {
		q.mu.Unlock()
		return nil
	}
	empty := make(chan struct{})
	q.empty = append(q.empty, empty)
	q.mu.Unlock()
	q.Kick()
	signal(q.hurry)
	sent, _ := q.Counters()
	for {
		why := context.DeadlineExceeded
		select {
		case <-empty:
			return nil
		case <-ctx.Done():
			why = ctx.Err()
		case <-time.After(stall):
		}
		now, pending := q.Counters()
		if now == sent || ctx.Err() != nil {
			return fmt.Errorf("%d events not taken by containerd: %w", pending, why)
		}
		sent = now
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send is the sender. It ends when nothing has been pending for a moment.
func (q *Queue) send() {
	var conn connection
	defer conn.close()
	pause := q.firstPause
	// waited is for the subscribers of a containerd that is back.
	failing, waited := false, false
	for {
		if q.stops() {
			return
		}
		e := q.next()
		if e == nil {
			if !q.more() {
				return
			}
			continue
		}
		err := conn.open(q.options)
		if err == nil && failing && !waited {
			q.awaitSubscribers()
			waited = true
			continue
		}
		if err == nil {
			err = conn.forward(q.options, e)
		}
		if err != nil && !refused(err) {
			conn.close()
			waited = false
			if !failing {
				q.options.Log("event %s is kept until containerd takes it: %v", e.Topic, err)
				failing = true
			}
			if q.rest(pause) {
				pause = q.firstPause
			} else {
				pause = min(2*pause, lastPause)
			}
			continue
		}
		if err != nil {
			q.options.Log("event %s is not wanted by containerd: %v", e.Topic, err)
		}
		failing, waited, pause = false, false, q.firstPause
		q.taken()
	}
}

// next is the event to be sent next, or nil.
func (q *Queue) next() *message.Envelope {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		encoded, read := q.backlog.first()
		switch {
		case read:
			q.refill()
		case encoded == nil:
			return nil
		default:
			e := new(message.Envelope)
			err := e.Read(encoded)
			if err == nil {
				return e
			}
			q.options.Log("an event is lost: %v", err)
			q.backlog.pop()
			q.tellEmpty()
		}
	}
}

// taken removes the first event.
func (q *Queue) taken() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlog.pop()
	q.sent++
	q.tellEmpty()
}

// tellEmpty tells those who wait for it that nothing is pending, if that is so.
// Called with mu held.
func (q *Queue) tellEmpty() {
	if q.backlog.len() > 0 {
		return
	}
	for _, empty := range q.empty {
		close(empty)
	}
	q.empty = nil
}

// more waits a moment for another event. Without one the sender is no more.
func (q *Queue) more() bool {
	timer := time.NewTimer(q.idle)
	defer timer.Stop()
	select {
	case <-q.wake:
		return true
	case <-timer.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = q.backlog.len() > 0
	if !q.sending {
		q.tellStill()
	}
	return q.sending
}

// rest waits until the next attempt. It tells whether that is due to a kick.
func (q *Queue) rest(pause time.Duration) (kicked bool) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-q.kick:
		return true
	case <-timer.C:
		return false
	}
}

// awaitSubscribers gives those time who want to hear of the next event, unless
// somebody waits for the queue.
func (q *Queue) awaitSubscribers() {
	select {
	case <-q.hurry: // of an earlier time
	default:
	}
	q.mu.Lock()
	hurry := q.held || len(q.empty) > 0
	q.mu.Unlock()
	if hurry {
		return
	}
	timer := time.NewTimer(q.subscribe)
	defer timer.Stop()
	select {
	case <-q.hurry:
	case <-timer.C:
	}
}
