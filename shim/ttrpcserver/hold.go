package ttrpcserver

// How a server is brought to a stop for a moment, with nothing lost: for its
// process to become another program (handover.go), or to find out that it
// cannot and go on.

import (
	"context"
	"fmt"
	"time"
)

// Pace tells how long a method takes.
type Pace uint8

const (
	// Fast methods answer at once.
	Fast Pace = iota
	// Slow ones run until something outside this process has ended.
	Slow
	// Waiting ones may wait for ever, and have done nothing until they answer:
	// they can be asked again.
	Waiting

	paces = iota
)

// hold says what is held up. It only grows between Release and Release.
type hold uint8

const (
	holdNothing hold = iota
	// holdSlow: calls of slow methods that come are parked.
	holdSlow
	// holdAll: all are, and nothing is read or accepted.
	holdAll
	// holdAnswers: nothing is written either.
	holdAnswers
)

// holds tells whether a call that comes now is parked.
func (h hold) holds(p Pace) bool { return h >= holdAll || h == holdSlow && p == Slow }

// HoldSlow parks calls of slow methods that come from now on, and waits until
// those that run have ended. When it fails, as after all that follows, Release
// lets everything go on.
func (s *Server) HoldSlow(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = holdSlow
	if !s.await(ctx, func() bool { return s.running[Slow] == 0 }) {
		return fmt.Errorf("%s does not end: %w", s.oldest(Slow), context.Cause(ctx))
	}
	return nil
}

// HoldAll parks all calls that come from now on, stops reading and accepting,
// and waits until only Waiting methods run.
func (s *Server) HoldAll(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = holdAll
	s.paid.Broadcast()
	for _, arrived := range s.listeners {
		wake(arrived)
	}
	if !s.await(ctx, func() bool {
		return s.running[Fast]+s.running[Slow]+s.accepting == 0 && !s.any(func(c *conn) bool { return c.reading })
	}) {
		return fmt.Errorf("%s does not end: %w", s.oldest(Fast), context.Cause(ctx))
	}
	return nil
}

// holdAnswers stops writing. Answers that come are kept. Called with mu held.
func (s *Server) holdAnswers(ctx context.Context) error {
	s.hold = holdAnswers
	for c := range s.conns {
		wake(c.room)
	}
	if !s.await(ctx, func() bool { return !s.any(func(c *conn) bool { return c.writing }) }) {
		return fmt.Errorf("answers do not stop: %w", context.Cause(ctx))
	}
	return nil
}

// Release undoes whatever of the above was done, and lets a restored server go
// on: answers leave, parked calls begin, requests are read. Serve, which was
// held up, accepts again.
func (s *Server) Release() {
	s.awaitRestored()
	s.mu.Lock()
	s.hold = holdNothing
	var begin, write, read []func()
	for c := range s.conns {
		if c.queue.first != nil && !c.writing {
			c.writing = true
			write = append(write, c.write)
		}
		if !c.reading && c.watch != nil {
			c.told = true // whether or not it was before it was held up
			c.begin()
			read = append(read, c.serve)
		}
	}
	for st := s.open.first; st != nil; {
		next := st.next
		switch {
		case st.answer != nil && st.conn.dropped && !st.conn.writing:
			st.conn.writing = true
			write = append(write, st.conn.write)
		case !st.parked:
		case st.conn.dropped:
			s.leave(st) // never begun, and nobody waits for it
		default:
			st.parked = false
			s.running[st.method.pace]++
			begin = append(begin, st.begin)
		}
		st = next
	}
	s.still.Broadcast()
	s.mu.Unlock()
	for _, all := range [][]func(){begin, write, read} {
		for _, f := range all {
			go f()
		}
	}
}

// begin calls the handler of a stream that was parked.
func (st *stream) begin() {
	call, err := decodeCall(st.frame[headerSize:])
	if err != nil { // it was decoded once before
		st.finish(encodeAnswer(st.id, nil, invalid("unmarshal request error: %v", err)))
		return
	}
	st.run(call)
}

// awaitRestored has the connections of a restored server watched, so that who reads
// and writes them can rely on that.
func (s *Server) awaitRestored() {
	s.mu.Lock()
	restored := s.restored
	s.restored = nil
	s.mu.Unlock()
	for _, c := range restored {
		c.await()
	}
}

// accepts is asked by an accept loop before each connection, and holds it up. It is
// false when the server is closed.
func (s *Server) accepts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold >= holdAll && !s.closing {
		s.accepting--
		s.still.Broadcast()
		for s.hold >= holdAll && !s.closing {
			s.still.Wait()
		}
		s.accepting++
	}
	return !s.closing
}

// await waits with mu, which is held, until holds is true, or ctx ends.
func (s *Server) await(ctx context.Context, holds func() bool) bool {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.still.Broadcast()
	})
	defer stop()
	for !holds() {
		if ctx.Err() != nil {
			return false
		}
		s.still.Wait()
	}
	return true
}

func (s *Server) any(is func(*conn) bool) bool {
	for c := range s.conns {
		if is(c) {
			return true
		}
	}
	return false
}

// oldest names the call of that pace, or of a faster one, that runs longest.
func (s *Server) oldest(most Pace) string {
	for st := s.open.first; st != nil; st = st.next {
		if st.method != nil && st.method.pace <= most && !st.parked && st.answer == nil {
			return fmt.Sprintf("%s, which runs for %s,", st.method.path(), time.Since(st.since).Round(time.Millisecond))
		}
	}
	return "a connection"
}
