package ttrpcserver

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// record is all that there is to know about a connection.
type record struct {
	Last    uint32
	Frame   []byte // begun
	Skip    int64
	Answers [][]byte // not sent, or the rest of the first
	Open    [][]byte // raw frames of requests without an answer
}

// interrupt stops a connection with a deadline and waits until nothing reads
// or writes it.
func interrupt(t *testing.T, c *conn) {
	t.Helper()
	c.sock.SetDeadline(time.Unix(1, 0))
	eventually(t, "the connection is stopped", func() bool {
		c.server.mu.Lock()
		defer c.server.mu.Unlock()
		return !c.reading && !c.writing || c.dropped
	})
	if c.dropped {
		t.Fatal("the connection was dropped")
	}
}

// recordOf a connection that is stopped.
func recordOf(t *testing.T, c *conn) record {
	t.Helper()
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(c.ahead) > 0 || c.chunk != nil {
		t.Errorf("%d bytes read ahead are left in a stopped connection", len(c.ahead))
	}
	r := record{Last: c.last, Frame: c.in.frame, Skip: c.in.skip}
	for st := c.queue.first; st != nil; st = st.behind {
		r.Answers = append(r.Answers, st.answer[st.sent:])
	}
	for st := s.open.first; st != nil; st = st.next {
		if st.conn == c && st.answer == nil {
			r.Open = append(r.Open, st.frame)
		}
	}
	return r
}

// adopt makes a server go on with a connection from its record.
func adopt(t *testing.T, s *Server, sock *net.UnixConn, r record) *conn {
	t.Helper()
	raw, err := sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{server: s, sock: sock, raw: raw}
	c.ready = c.readSocket
	c.ctx, c.cancel = t.Context(), func() {}
	c.in.reset()
	// What was begun is put together again from its bytes.
	for rest := r.Frame; len(rest) > 0; {
		rest = rest[c.in.take(rest):]
	}
	if c.in.size > 0 && r.Skip > 0 {
		c.in.skip = r.Skip
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.running.Add(1)
	c.reading, c.writing = true, true
	s.mu.Unlock()
	for _, rest := range r.Answers {
		st := &stream{conn: c, since: time.Now()}
		s.enter(st)
		st.finish(rest)
	}
	for _, frame := range r.Open {
		c.dispatch(frame)
	}
	c.last = r.Last
	go c.write()
	go c.serve()
	return c
}

// goOn undoes an interrupt.
func goOn(c *conn) {
	c.sock.SetDeadline(time.Time{})
	c.server.mu.Lock()
	c.server.running.Add(1)
	c.reading, c.writing = true, true
	c.server.mu.Unlock()
	go c.write()
	go c.serve()
}

// For an upgrade the whole server moves into another process image, at any
// moment: with frames half read, answers half written and requests in flight.
// Nothing but the record and the socket goes over, and nobody may notice.
func TestServerCanBeReplacedAtAnyMomentFromItsRecord(t *testing.T) {
	const requests, replacements = 6000, 60
	newServer := func() *Server {
		s := New(Options{Log: t.Logf})
		s.Register(testService, handlersOf(echoMethods()))
		return s
	}
	s, path := start(t, Options{Log: t.Logf}, nil)
	w := dial(t, path)
	c := theConn(t, s)

	text := func(id uint32) string { return strings.Repeat(fmt.Sprint(id, " "), int(id*id%3001)) }
	w.send(requestOf(1, "Hold", "held since the first server"))
	go func() {
		random := rand.New(rand.NewPCG(3, 4))
		for id := uint32(3); id < 2*requests; {
			var batch []byte
			for range 1 + random.IntN(30) {
				if id%501 == 0 {
					batch = append(batch, headOf(maxData+1, id, requestFrame, 0)...)
					batch = append(batch, make([]byte, maxData+1)...)
				} else {
					batch = append(batch, requestOf(id, "Echo", text(id))...)
				}
				if id += 2; id >= 2*requests {
					break
				}
			}
			for len(batch) > 0 {
				n := min(1+random.IntN(20000), len(batch))
				if _, err := w.Write(batch[:n]); err != nil {
					t.Errorf("send: %v", err)
					return
				}
				batch = batch[n:]
			}
		}
	}()

	var begun, answers, open int
	received := 1
	for n := range replacements {
		for ; received < requests*(n+1)/(replacements+1); received++ {
			expectEcho(t, w, text)
		}
		interrupt(t, c)
		r := recordOf(t, c)
		encoded, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		r = record{}
		if err := json.Unmarshal(encoded, &r); err != nil {
			t.Fatal(err)
		}
		begun += len(r.Frame)
		answers += len(r.Answers)
		open += len(r.Open)
		file, err := c.sock.File()
		if err != nil {
			t.Fatal(err)
		}
		copied, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		// The old image is gone; its handlers answer into the void.
		c.drop(net.ErrClosed)
		s = newServer()
		c = adopt(t, s, copied.(*net.UnixConn), r)
	}
	for ; received < requests; received++ {
		expectEcho(t, w, text)
	}
	w.send(requestOf(2*requests+1, "Release", "released"))
	got := map[response]bool{w.receive(): true, w.receive(): true}
	if !got[response{1, codes.OK, "held since the first server"}] || !got[response{2*requests + 1, codes.OK, "released"}] {
		t.Errorf("the last answers: %v", got)
	}
	t.Logf("%d replacements: %d bytes of begun frames, %d answers, %d open requests handed over",
		replacements, begun, answers, open)
	if begun == 0 || answers == 0 || open < replacements {
		t.Error("not every kind of state was handed over")
	}
	w.Close()
	expectNothingOpen(t, s)
}

// expectEcho receives an answer to any of the requests.
func expectEcho(t *testing.T, w *wire, text func(uint32) string) {
	t.Helper()
	r := w.receive()
	want := response{r.id, codes.OK, text(r.id)}
	if r.id%501 == 0 {
		want = response{r.id, codes.ResourceExhausted, "message length 4194305 exceed maximum message size of 4194304"}
	}
	if r != want {
		t.Fatalf("answer to %d: %v, %.100q", r.id, r.code, r.text)
	}
}

// A server that was interrupted and not replaced goes on as if nothing was.
func TestInterruptedConnectionCanBeServedAgain(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf}, nil)
	w := dial(t, path)
	c := theConn(t, s)
	whole := requestOf(1, "Echo", strings.Repeat("x", 1<<20))
	w.send(whole[:len(whole)-1])
	eventually(t, "it has been read", func() bool { return w.unread() == 0 })
	interrupt(t, c)
	if n := len(c.in.frame); n != len(whole)-1 {
		t.Errorf("%d bytes of the frame are kept, %d were sent", n, len(whole)-1)
	}
	goOn(c)
	w.send(whole[len(whole)-1:])
	w.expect(1, codes.OK, strings.Repeat("x", 1<<20))

	// The answer, larger than the socket takes, stops half-way.
	w.send(requestOf(3, "Echo", strings.Repeat("y", 1<<20)))
	eventually(t, "it is being answered", func() bool {
		open := s.Open()
		return len(open) == 1 && open[0].Answered
	})
	interrupt(t, c)
	if st := c.queue.first; st.sent <= 0 || st.sent >= len(st.answer) {
		t.Errorf("%d of %d bytes sent", st.sent, len(st.answer))
	}
	goOn(c)
	w.expect(3, codes.OK, strings.Repeat("y", 1<<20))
}

// A connection that is not read because its peer does not read can be
// interrupted as well: nothing may wait for that peer.
func TestConnectionThatWaitsForItsPeerCanBeInterrupted(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf}, nil)
	w := dial(t, path)
	c := theConn(t, s)
	const requests = 4000
	text := strings.Repeat("x", 4000)
	go func() {
		for i := range uint32(requests) {
			w.Write(requestOf(2*i+1, "Echo", text))
		}
	}()
	eventually(t, "the server has had enough", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return c.owed > maxOwed
	})
	for range 3 {
		interrupt(t, c)
		goOn(c)
	}
	for range requests {
		if r := w.receive(); r.code != codes.OK || r.text != text {
			t.Fatalf("answer %+v", r)
		}
	}
}
