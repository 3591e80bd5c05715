package ttrpcserver

// The table of open streams and the way of an answer. A stream enters the
// table once, before anything is done for it, and leaves it once, when its
// answer has been written or cannot be: in write, and nowhere else.

import (
	"errors"
	"fmt"
	"time"
)

// A connection whose peer does not read its answers is itself not read any
// more while the answers that wait cost this much.
const maxOwed = 4 << 20

// stream is one request from its arrival until its answer has left.
type stream struct {
	conn   *conn
	id     uint32
	method *method // nil for a frame that was refused
	since  time.Time
	// replayed tells that another process image has begun it already.
	replayed bool

	// Guarded by conn.server.mu; sent belongs to the goroutine that writes,
	// while one does.
	frame      []byte // as it came; nil once there is an answer
	answer     []byte // the whole frame; nil until there is one
	sent       int    // how much of the answer has left
	parked     bool   // its handler is not called before Release
	prev, next *stream
	behind     *stream // in answers
}

// cost is what an answer counts for while it waits.
func (st *stream) cost() int { return len(st.answer) + 1024 }

// streamList is a list of streams in the order of their arrival.
type streamList struct{ first, last *stream }

func (l *streamList) add(st *stream) {
	st.prev = l.last
	if l.last == nil {
		l.first = st
	} else {
		l.last.next = st
	}
	l.last = st
}

func (l *streamList) remove(st *stream) {
	if st.prev == nil {
		l.first = st.next
	} else {
		st.prev.next = st.next
	}
	if st.next == nil {
		l.last = st.prev
	} else {
		st.next.prev = st.prev
	}
	st.prev, st.next = nil, nil
}

// answers are the streams of one connection whose answers have not left, in
// the order in which they will.
type answers struct{ first, last *stream }

func (q *answers) add(st *stream) {
	if q.last == nil {
		q.first = st
	} else {
		q.last.behind = st
	}
	q.last = st
}

func (q *answers) removeFirst() {
	st := q.first
	q.first = st.behind
	if q.first == nil {
		q.last = nil
	}
	st.behind = nil
}

// enter puts a stream into the table. It returns false when no more requests
// are taken, from this connection or at all.
func (s *Server) enter(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || st.conn.dropped {
		return false
	}
	s.add(st)
	if st.method != nil {
		st.parked = s.hold.holds(st.method.pace)
		if !st.parked {
			s.running[st.method.pace]++
		}
	}
	return true
}

// add puts a stream into the table. Called with mu held.
func (s *Server) add(st *stream) {
	s.open.add(st)
	st.conn.open++
	s.live++
}

// leave takes a stream out of the table. Called with mu held.
func (s *Server) leave(st *stream) {
	c := st.conn
	s.open.remove(st)
	s.answered++
	c.open--
	if !c.dropped {
		s.live--
		s.settle()
	}
}

// settle tells Close when there is nothing left to be answered. Called with mu
// held after every change of closing and live.
func (s *Server) settle() {
	if !s.closing || s.live > 0 {
		return
	}
	closeOnce(s.quiet)
	if len(s.conns) == 0 {
		closeOnce(s.parted)
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// isOpen tells whether a request with that stream id is being answered.
func (s *Server) isOpen(c *conn, id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := s.open.first; st != nil; st = st.next {
		if st.conn == c && st.id == id && st.method != nil {
			return true
		}
	}
	return false
}

// awaitPayment waits until the peer has read enough of its answers for its
// next requests to be taken, or until nothing is written to it any more. It
// returns false when nothing is to be read for now.
func (s *Server) awaitPayment(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c.owed > maxOwed && c.writing && !c.dropped && s.hold < holdAll {
		s.paid.Wait()
	}
	return s.hold < holdAll
}

// finish gives a stream its answer and sees to it that it is written: by the
// goroutine that is writing to the connection, else by this one.
func (st *stream) finish(answer []byte) {
	c := st.conn
	s := c.server
	s.mu.Lock()
	st.answer, st.frame = answer, nil
	c.queue.add(st)
	c.owed += st.cost()
	if st.method != nil {
		s.running[st.method.pace]--
		s.still.Broadcast()
	}
	if c.writing || s.hold >= holdAnswers && !c.dropped {
		s.mu.Unlock()
		return
	}
	c.writing = true
	s.mu.Unlock()
	c.write()
}

// write writes the answers that are queued, each with one write(2) where the
// socket has room for it, until none is left. The caller has set writing. On a
// connection that is dropped they are forgotten. A write that is held up leaves the
// rest in the queue, with how much of it has left.
func (c *conn) write() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for c.queue.first != nil {
		st := c.queue.first
		if s.hold >= holdAnswers && !c.dropped {
			break
		}
		if !c.dropped {
			s.mu.Unlock()
			n, err := c.send(st.answer[st.sent:])
			if err != nil && !errors.Is(err, errHeld) {
				c.drop(fmt.Errorf("write: %w", err))
			}
			s.mu.Lock()
			st.sent += n
			if errors.Is(err, errHeld) {
				s.paid.Broadcast()
				break
			}
		}
		c.queue.removeFirst()
		before := c.owed
		c.owed -= st.cost()
		if before > maxOwed && c.owed <= maxOwed {
			s.paid.Broadcast()
		}
		s.leave(st)
	}
	c.writing = false
	s.still.Broadcast()
}
