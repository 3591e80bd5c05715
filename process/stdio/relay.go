package stdio

// This file passes output on through the shim: what comes out of a terminal,
// what goes to a file, and what must not wait for its reader. A relay takes from
// its source, keeps what the sink does not take now, and passes on in order.

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstPause and lastPause bound the wait before a sink that fails is tried
	// again; it doubles.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Minute
	// burst is how many buffers of kept output are passed on before the source is
	// looked after.
	burst = 4
)

// relay is a pump for output.
type relay struct {
	*pump
	poller *poller
	src    source
	dst    sink
	// encoder, which may be nil, makes the records of a log of the output.
	encoder *encoder
	// kept has what the sink does not take. Without it the process waits, and
	// nothing is read that there is no room for.
	kept *ring

	// What follows is the pump's goroutine's own: plain data.

	front   []byte // goes before what is kept
	ended   bool   // the source is at its end
	full    bool   // the sink takes nothing now
	gone    bool   // the sink will never take anything again
	midline bool   // what the sink took last did not end a line
	lost    Loss   // dropped, and not told in the output yet
	// pause is how long the sink has been left in peace since it failed, 0 when
	// it does not; it is tried again at retryAt.
	pause   time.Duration
	retryAt time.Time

	counters
}

// counters are what the state tells of a relay, for any goroutine.
type counters struct {
	waiting, droppedBytes, droppedLines, failures atomic.Int64
	failure                                       atomic.Pointer[string]
	looks                                         atomic.Int64 // passes that were begun
}

// state is what is told of the relay.
func (r *relay) state() OutputState {
	s := OutputState{
		Name: r.name, Waiting: r.waiting.Load(), Failures: r.failures.Load(),
		Dropped: Loss{r.droppedBytes.Load(), r.droppedLines.Load()},
	}
	if failure := r.failure.Load(); failure != nil {
		s.Failure = *failure
	}
	return s
}

// newRelay returns a relay without a source; see from. It owns dst, and kept,
// which may be nil.
func newRelay(name string, dst sink, kept *ring, log func(string, ...any)) (*relay, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r := &relay{pump: newPump(name, log), poller: poller, dst: dst, kept: kept}
	r.passer = r
	if fd := dst.descriptor(); fd >= 0 {
		if err := poller.add(fd, unix.EPOLLOUT); err != nil {
			poller.file.Close()
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return r, nil
}

// from gives the relay its source, which it owns from here on.
func (r *relay) from(src source) error {
	r.src = src
	return r.poller.add(src.descriptor().fd, unix.EPOLLIN)
}

// pass passes on what is kept, then takes a buffer of what is new, and waits
// when there is nothing of either.
func (r *relay) pass() error {
	r.looks.Add(1)
	moved := r.deliver()
	if r.over() {
		r.tellLost(0)
		return errEnd
	}
	took := r.take()
	r.count()
	if moved || took {
		return nil
	}
	return r.wait()
}

// over tells whether nothing more will be passed on.
func (r *relay) over() bool {
	return r.gone || r.ended && !r.holds() || r.at() >= closing && r.pause > 0
}

// holds tells whether something was taken that is not passed on.
func (r *relay) holds() bool {
	return len(r.front) > 0 || r.kept != nil && r.kept.size > 0 || r.lost != Loss{}
}

// deliver passes on what was taken before, until the sink takes nothing more.
// It tells whether it took anything.
func (r *relay) deliver() (moved bool) {
	r.full = false
	for range burst {
		if len(r.front) == 0 && r.lost != (Loss{}) {
			notice := r.notice()
			n := r.write(notice)
			if n == 0 {
				return moved
			}
			r.log("%s: %d bytes in %d lines of output were dropped", r.name, r.lost.Bytes, r.lost.Lines)
			moved, r.front, r.lost = true, notice[n:], Loss{}
		}
		if len(r.front) > 0 {
			n := r.write(r.front)
			moved = moved || n > 0
			if r.front = r.front[n:]; len(r.front) > 0 {
				return moved
			}
			r.front = nil
			continue
		}
		if r.kept == nil || r.kept.size == 0 {
			return moved
		}
		buf := pipeBuffers.Get().(*[]byte)
		b, err := r.kept.peek(*buf)
		if err != nil {
			r.drop(Loss{Bytes: r.kept.size}, err)
			r.kept.discard(r.kept.size)
		} else {
			n := r.write(b)
			moved = moved || n > 0
			if n > 0 {
				r.kept.discard(int64(n))
			}
			if n < len(b) {
				pipeBuffers.Put(buf)
				return moved
			}
		}
		pipeBuffers.Put(buf)
	}
	return moved
}

// openLine tells whether what was passed on, or will be first, ends in the middle
// of a line, the rest of which must not be dropped. It is bounded.
func (r *relay) openLine() bool {
	if n := len(r.front); n > 0 {
		return r.front[n-1] != '\n' && n < lineSlack
	}
	return r.midline
}

// finishLine moves the rest of the open line from what is kept, or else from b,
// to what is never dropped. It returns what is left of b.
func (r *relay) finishLine(b []byte) []byte {
	if r.kept.size == 0 {
		n := lineEnd(b)
		r.front = append(r.front, b[:n]...)
		return b[n:]
	}
	buf := pipeBuffers.Get().(*[]byte)
	defer pipeBuffers.Put(buf)
	if old, err := r.kept.peek(*buf); err == nil {
		n := lineEnd(old)
		r.front = append(r.front, old[:n]...)
		r.kept.discard(int64(n))
	}
	return b
}

// lineEnd is where the first line of b ends, or b.
func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// take reads a buffer, if there is something to read and either room for it or
// a place to keep it.
func (r *relay) take() bool {
	if r.ended || r.kept == nil && len(r.front) > 0 {
		return false
	}
	some, end := r.src.look(r.at())
	switch {
	case end:
		r.atSourceEnd()
		return true
	case !some:
		return false
	case r.kept == nil && r.dst.descriptor() >= 0 && !ready(r.dst.descriptor(), unix.POLLOUT):
		r.full = true
		return false
	}
	return r.read(math.MaxInt) > 0
}

// read reads a buffer, but no more than max, and returns how much that was.
func (r *relay) read(max int) int {
	pool := r.src.chunk()
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	n, err := read(r.src.descriptor().fd, (*buf)[:min(max, len(*buf))])
	switch {
	case n > 0:
		r.accept((*buf)[:n])
	case err == nil:
		r.atSourceEnd()
	case err != unix.EAGAIN && err != unix.EIO:
		r.log("%s: %v", r.name, err)
		r.atSourceEnd()
	}
	return n
}

// atSourceEnd passes on what was held for want of its end.
func (r *relay) atSourceEnd() {
	r.ended = true
	if r.encoder != nil {
		r.forward(r.encoder.end(time.Now()))
	}
}

// accept is given what was read.
func (r *relay) accept(b []byte) {
	if r.encoder != nil {
		b = r.encoder.encode(b, time.Now())
	}
	r.forward(b)
}

// forward passes b on, and keeps what is not taken.
func (r *relay) forward(b []byte) {
	if !r.holds() {
		b = b[r.write(b):]
	}
	if r.kept == nil {
		r.front = append(r.front, b...)
		return
	}
	if overflows := r.kept.size+int64(len(b)) > r.kept.room; len(b) > 0 && r.openLine() && (r.kept.size == 0 || overflows) {
		b = r.finishLine(b)
	}
	if lost := r.kept.append(b); lost != (Loss{}) {
		r.drop(lost, errors.New("there is no room for more output that nobody takes"))
	}
}

// drop counts what was dropped, and tells of the first of it.
func (r *relay) drop(lost Loss, why error) {
	if r.lost == (Loss{}) {
		r.log("%s: output is dropped: %v", r.name, why)
	}
	r.lost.Bytes += lost.Bytes
	r.lost.Lines += lost.Lines
	r.droppedBytes.Add(lost.Bytes)
	r.droppedLines.Add(lost.Lines)
}

// notice is what stands in the output for what was dropped.
func (r *relay) notice() []byte {
	text := fmt.Sprintf("[cleat: %d bytes in %d lines of output dropped]\n", r.lost.Bytes, r.lost.Lines)
	b := []byte(text)
	if r.encoder != nil {
		b = r.encoder.record(b, time.Now())
	}
	if r.midline {
		b = append([]byte{'\n'}, b...)
	}
	return b
}

// write gives b to the sink, unless that has failed a moment ago, and returns
// how much it took.
func (r *relay) write(b []byte) int {
	if r.pause > 0 && time.Now().Before(r.retryAt) && r.at() < exited || len(b) == 0 {
		return 0
	}
	n, err := r.dst.write(b)
	if n > 0 {
		r.midline = b[n-1] != '\n'
	}
	switch err {
	case nil:
		if r.pause > 0 {
			r.log("%s: output is written again", r.name)
			r.pause = 0
		}
	case unix.EAGAIN:
		r.full = true
	case unix.EPIPE: // only once our hold on the FIFO is given up
		r.gone = true
	default:
		r.failed(err)
	}
	return n
}

// failed has the sink tried again later.
func (r *relay) failed(err error) {
	if r.pause == 0 {
		r.log("%s: output cannot be written, which is tried again: %v", r.name, err)
	}
	r.pause = min(max(2*r.pause, firstPause), lastPause)
	r.retryAt = time.Now().Add(r.pause)
	r.failures.Add(1)
	text := err.Error()
	r.failure.Store(&text)
}

// wait returns when there is something to do. Nothing wakes it at idle.
func (r *relay) wait() error {
	failing := r.pause > 0
	out := r.full && !failing
	in := !r.ended && (r.kept != nil || len(r.front) == 0 && !r.full)
	if failing && r.holds() {
		r.poller.until(r.retryAt)
		if r.interrupted() { // whose deadline this may have replaced
			return nil
		}
	}
	return r.poller.wait(func() bool {
		if in {
			if some, end := r.src.look(r.at()); some || end {
				return true
			}
		}
		return out && ready(r.dst.descriptor(), unix.POLLOUT)
	})
}

// last passes on what is there now. What comes after is not waited for: a
// process that never stops writing would otherwise keep the relay for ever.
func (r *relay) last() {
	r.pause = 0 // try once more
	for r.deliver() {
	}
	for rest := r.src.rest(); rest > 0 && !r.ended && (r.kept != nil || !r.holds()); {
		n := r.read(rest)
		if n <= 0 {
			break
		}
		rest -= n
		r.deliver()
	}
	if !r.ended {
		r.atSourceEnd()
	}
	for r.deliver() {
	}
	left := 0
	if _, pipe := r.src.(pipeSource); pipe {
		left = r.src.rest()
	}
	r.tellLost(left)
}

// tellLost tells at the end what was not passed on; left is what was not even
// taken.
func (r *relay) tellLost(left int) {
	n := int64(len(r.front)+left) + r.lost.Bytes
	if r.kept != nil {
		n += r.kept.size
	}
	if n > 0 {
		r.log("%s: %d bytes of output are lost: nobody has taken them", r.name, n)
	}
	r.waiting.Store(0)
}

func (r *relay) count() {
	n := int64(len(r.front))
	if r.kept != nil {
		n += r.kept.size
	}
	if n != r.waiting.Load() {
		r.waiting.Store(n)
	}
}

// close closes the write end first: while the read end is open nothing of a
// pipe is thrown away.
func (r *relay) close() {
	r.dst.close()
	if r.src != nil {
		r.src.descriptor().close()
	}
	r.poller.file.Close()
	if r.kept != nil {
		r.kept.store.Close()
	}
}

func (r *relay) wake()            { r.poller.until(past) }
func (r *relay) rearm()           { r.poller.until(never) }
func (r *relay) sourceGone() bool { return r.src.gone(r.at()) }
func (r *relay) source() *end     { return r.src.descriptor() }
