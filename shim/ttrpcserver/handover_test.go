package ttrpcserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// paceOf tells the pace of the methods of the test service.
func paceOf(_, method string) Pace {
	switch method {
	case "Hold", "UntilDone":
		return Waiting
	case "Slow":
		return Slow
	}
	return Fast
}

// stop brings a server to a stop and returns its state.
func stop(t *testing.T, s *Server, files *handover.Files) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := errors.Join(s.HoldSlow(ctx), s.HoldAll(ctx)); err != nil {
		t.Fatal(err)
	}
	state, err := s.Commit(ctx, files)
	if err != nil {
		t.Fatal(err)
	}
	for c := range s.conns {
		if len(c.ahead) > 0 || c.chunk != nil {
			t.Errorf("%d bytes read ahead are left in a stopped connection", len(c.ahead))
		}
	}
	return state
}

// replace makes a new server of what an old one hands over, which is gone then.
func replace(t *testing.T, old, s *Server) State {
	t.Helper()
	var files handover.Files
	state := stop(t, old, &files)
	// In one process both would own the files.
	for name, fd := range files.Numbers {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		files.Numbers[name] = copied
	}
	encoded, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	state = State{}
	if err := json.Unmarshal(encoded, &state); err != nil {
		t.Fatal(err)
	}
	inherited := handover.Inherit(files.Numbers)
	if err := s.Restore(state, inherited); err != nil {
		t.Fatal(err)
	}
	inherited.Own()
	old.mu.Lock()
	conns := slices.Collect(maps.Keys(old.conns))
	old.mu.Unlock()
	for _, c := range conns {
		c.drop(net.ErrClosed)
	}
	s.Release()
	return state
}

// For an upgrade the whole server moves into another process image, at any
// moment: with frames half read, answers half written and requests in flight.
// Nothing but the state and the socket goes over, and nobody may notice.
func TestServerCanBeReplacedAtAnyMoment(t *testing.T) {
	const requests, replacements = 6000, 60
	newServer := func() *Server {
		s := New(Options{Log: t.Logf, Pace: paceOf})
		s.Register(testService, handlersOf(echoMethods()))
		return s
	}
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, nil)
	w := dial(t, path)

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
		next := newServer()
		connection := replace(t, s, next).Connections[0]
		begun += len(connection.Frame)
		answers += len(connection.Answers)
		open += len(connection.Unanswered)
		s = next
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
func expectEcho(t *testing.T, w *peer, text func(uint32) string) {
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

// A server that was stopped and not replaced goes on as if nothing was.
func TestStoppedServerCanGoOn(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, nil)
	w := dial(t, path)
	c := theConn(t, s)
	whole := requestOf(1, "Echo", strings.Repeat("x", 1<<20))
	w.send(whole[:len(whole)-1])
	eventually(t, "it has been read", func() bool { return w.unread() == 0 })
	stop(t, s, nil)
	if n := len(c.in.frame); n != len(whole)-1 {
		t.Errorf("%d bytes of the frame are kept, %d were sent", n, len(whole)-1)
	}
	s.Release()
	w.send(whole[len(whole)-1:])
	w.expect(1, codes.OK, strings.Repeat("x", 1<<20))

	// The answer, larger than the socket takes, stops half-way.
	w.send(requestOf(3, "Echo", strings.Repeat("y", 1<<20)))
	eventually(t, "it is being answered", func() bool {
		open := s.Open()
		return len(open) == 1 && open[0].Answered
	})
	stop(t, s, nil)
	if st := c.queue.first; st.sent <= 0 || st.sent >= len(st.answer) {
		t.Errorf("%d of %d bytes sent", st.sent, len(st.answer))
	}
	s.Release()
	w.expect(3, codes.OK, strings.Repeat("y", 1<<20))
}

// A connection that is not read because its peer does not read can be
// stopped as well: nothing may wait for that peer.
func TestConnectionThatWaitsForItsPeerCanBeStopped(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, nil)
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
		stop(t, s, nil)
		s.Release()
	}
	for range requests {
		if r := w.receive(); r.code != codes.OK || r.text != text {
			t.Fatalf("answer %+v", r)
		}
	}
}

// Slow calls are let end before the others have to wait, and new ones wait until
// the end of that.
func TestSlowCallsAreLetEndAndNewOnesWait(t *testing.T) {
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, handlersOf(map[string]echoMethod{
		"Slow": func(_ context.Context, in string) (string, error) {
			begun <- struct{}{}
			<-goOn
			return in, nil
		},
	}))
	w := dial(t, path)
	w.send(requestOf(1, "Slow", "first"))
	<-begun
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.HoldSlow(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "/"+testService+"/Slow") {
		t.Errorf("one runs, and the end of that is told as: %v", err)
	}
	w.send(requestOf(3, "Slow", "second"), requestOf(5, "Echo", "fast"))
	w.expect(5, codes.OK, "fast")
	goOn <- struct{}{}
	w.expect(1, codes.OK, "first")
	stop(t, s, nil)
	if len(begun) > 0 {
		t.Error("a slow call has begun meanwhile")
	}
	s.Release()
	<-begun
	goOn <- struct{}{}
	w.expect(3, codes.OK, "second")
}

// What was begun and not answered is begun once more in the next image, which
// can tell; the caller's time goes on running.
func TestUnansweredRequestIsReplayedWithItsDeadline(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, nil)
	w := dial(t, path)
	w.send(frameOf(1, requestFrame, 0, marshal(&ttrpc.Request{Service: testService, Method: "UntilDone", TimeoutNano: int64(200 * time.Millisecond)})))
	sent := time.Now()
	eventually(t, "it is there", func() bool { return len(s.Open()) == 1 })
	type asked struct {
		replayed bool
		deadline time.Time
	}
	seen := make(chan asked, 1)
	next := New(Options{Log: t.Logf, Pace: paceOf})
	next.Register(testService, handlersOf(map[string]echoMethod{"UntilDone": func(ctx context.Context, _ string) (string, error) {
		deadline, _ := ctx.Deadline()
		seen <- asked{Replayed(ctx), deadline}
		return "done", nil
	}}))
	replace(t, s, next)
	if a := <-seen; !a.replayed || a.deadline.After(sent.Add(300*time.Millisecond)) {
		t.Errorf("asked at %s, the handler was told %+v", sent, a)
	}
	w.expect(1, codes.OK, "done")
	w.Close()
	expectNothingOpen(t, next)
}

func TestAnswersWaitWhileTheServerIsStopped(t *testing.T) {
	s, path := start(t, Options{Log: t.Logf, Pace: paceOf}, nil)
	w := dial(t, path)
	w.send(frameOf(1, requestFrame, 0, marshal(&ttrpc.Request{Service: testService, Method: "UntilDone", TimeoutNano: int64(20 * time.Millisecond)})))
	eventually(t, "it is there", func() bool { return len(s.Open()) == 1 })
	state := stop(t, s, nil)
	if len(state.Connections) != 1 || len(state.Connections[0].Unanswered) != 1 || !state.Connections[0].Unanswered[0].Begun {
		t.Fatalf("state %+v", state)
	}
	eventually(t, "it is answered", func() bool { return s.Open()[0].Answered })
	if n := w.unread(); n != 0 || w.in.Buffered() != 0 {
		t.Error("the answer has left")
	}
	late := dial(t, path)
	late.send(requestOf(1, "Echo", "late"))
	s.Release()
	w.expect(1, codes.DeadlineExceeded, context.DeadlineExceeded.Error())
	late.expect(1, codes.OK, "late")
}
