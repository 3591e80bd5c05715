package ttrpcserver

// What a server knows as plain data, how it is taken and how it is restored. No
// frame has to be complete for that: what has come of one is kept and goes on
// in the next process image, as does an answer that has left in part.

import (
	"context"
	"fmt"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
)

// State is all that a server knows, but for its listeners and services.
type State struct {
	// Accepted connections and answered requests, ever.
	Accepted, Answered uint64
	Connections        []Connection `json:",omitempty"`
}

// Connection is one that is open.
type Connection struct {
	Number uint64
	Socket string // the file's name
	// Last is the highest stream id that a request has used.
	Last uint32 `json:",omitempty"`
	// Frame is what has come of a frame that is not complete. Skip is how much
	// is still to come of the data of one with too much.
	Frame []byte `json:",omitempty"`
	Skip  int64  `json:",omitempty"`
	// Unanswered requests, in the order in which they came, and Answers that
	// have not left, in the order in which they will.
	Unanswered []Unanswered `json:",omitempty"`
	Answers    []Answer     `json:",omitempty"`
}

// Unanswered is one request.
type Unanswered struct {
	Frame []byte
	Since time.Time
	// Begun tells that its handler was called.
	Begun bool `json:",omitempty"`
}

// Answer is a frame that has not left.
type Answer struct {
	Stream uint32
	Frame  []byte
	// Sent is how much of it has left.
	Sent int `json:",omitempty"`
}

// Commit stops what HoldAll has left and returns the state. From now on nothing
// leaves this server before Release: who has the state answers.
func (s *Server) Commit(ctx context.Context, files *handover.Files) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.holdAnswers(ctx); err != nil {
		return State{}, err
	}
	return s.state(files), nil
}

// State as it is now, of a server that is not held up: to look at, or to try
// out whether another program can read it. Frames that are being read, and what
// requests and answers hold, are not in it.
func (s *Server) State(files *handover.Files) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state(files)
	for i := range state.Connections {
		c := &state.Connections[i]
		c.Frame, c.Skip, c.Unanswered, c.Answers = nil, 0, nil, nil
	}
	return state
}

func (s *Server) state(files *handover.Files) State {
	state := State{Accepted: s.accepted, Answered: s.answered}
	places := make(map[*conn]int, len(s.conns))
	for c := range s.conns {
		connection := Connection{Number: c.number, Socket: files.Add(fmt.Sprintf("connection/%d", c.number), &c.sock)}
		if connection.Socket == "" {
			continue // it is being dropped
		}
		if !c.reading {
			connection.Last = c.last
			connection.Frame, connection.Skip = c.in.frame, c.in.skip
		}
		for st := c.queue.first; st != nil; st = st.behind {
			connection.Answers = append(connection.Answers, Answer{Stream: st.id, Frame: st.answer, Sent: st.sent})
		}
		places[c] = len(state.Connections)
		state.Connections = append(state.Connections, connection)
	}
	for st := s.open.first; st != nil; st = st.next {
		if place, open := places[st.conn]; open && st.answer == nil {
			connection := &state.Connections[place]
			connection.Unanswered = append(connection.Unanswered, Unanswered{Frame: st.frame, Since: st.since, Begun: st.replayed || !st.parked})
		}
	}
	return state
}

// Restore fills a new server, whose services are registered, with a state. It
// begins nothing; Release does.
func (s *Server) Restore(state State, files *handover.Inherited) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = holdAnswers
	s.accepted, s.answered = state.Accepted, state.Answered
	for _, connection := range state.Connections {
		if err := s.restore(connection, files); err != nil {
			return fmt.Errorf("restore connection %d: %w", connection.Number, err)
		}
	}
	return nil
}

func (s *Server) restore(connection Connection, files *handover.Inherited) error {
	fd, err := files.TakeNumber(connection.Socket)
	if err != nil {
		return err
	}
	c := s.newConn(fd)
	c.number, c.last = connection.Number, connection.Last
	for rest := connection.Frame; len(rest) > 0; {
		n := c.in.take(rest)
		if n == 0 {
			return fmt.Errorf("%d bytes too many for a frame", len(rest))
		}
		rest = rest[n:]
	}
	if connection.Skip > 0 {
		c.in.skip = connection.Skip
	}
	s.conns[c] = struct{}{}
	s.restored = append(s.restored, c)
	for _, a := range connection.Answers {
		st := &stream{conn: c, id: a.Stream, answer: a.Frame, sent: a.Sent, since: time.Now()}
		s.add(st)
		c.queue.add(st)
		c.owed += st.cost()
	}
	for _, u := range connection.Unanswered {
		if err := s.restoreRequest(c, u); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) restoreRequest(c *conn, u Unanswered) error {
	if len(u.Frame) < headerSize {
		return fmt.Errorf("a request of %d bytes", len(u.Frame))
	}
	h := headerOf(u.Frame)
	call, err := decodeCall(u.Frame[headerSize:])
	if err != nil {
		return fmt.Errorf("request %d: %w", h.stream, err)
	}
	m, ok := s.services[string(call.service)][string(call.method)]
	if !ok {
		return fmt.Errorf("request %d is for /%s/%s, which is not served", h.stream, call.service, call.method)
	}
	s.add(&stream{conn: c, id: h.stream, frame: u.Frame, method: m, since: u.Since, parked: true, replayed: u.Begun})
	return nil
}

type replayedKey struct{}

// Replayed tells a handler that the request was begun by the program from which
// this one was handed the server's state.
func Replayed(ctx context.Context) bool { return ctx.Value(replayedKey{}) != nil }

// context of the connection, for the stream.
func (st *stream) context() context.Context {
	if st.replayed {
		return context.WithValue(st.conn.ctx, replayedKey{}, true)
	}
	return st.conn.ctx
}
