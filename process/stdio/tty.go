package stdio

// This file passes bytes between a terminal's master and the client. A pty
// cannot be handed over: the client made FIFOs. Bytes go through a small buffer
// that is taken only when there is something to read and room to write it, so an
// idle terminal, or one whose client is away, holds none.

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// ttyChunk is what the line discipline gives at most for one read, and what a
// FIFO that is ready for writing takes as a whole (PIPE_BUF, pipe(7)).
const ttyChunk = 4096

var ttyBuffers = sync.Pool{New: func() any { return new([ttyChunk]byte) }}

// newTTYReader passes the output of a terminal on to dst.
func newTTYReader(name string, master, dst *end, log func(string, ...any)) *ttyReader {
	r := &ttyReader{pump: newPump(name, master, dst, log)}
	r.pump.pass, r.pump.last = func(*pump) error { return r.pass() }, func(*pump) { r.rest() }
	r.session = hasSession(master.fd)
	return r
}

type ttyReader struct {
	*pump
	pending
	// session tells that the terminal was some session's when it was
	// received. The kernel takes it away when it hangs the terminal up.
	session bool
}

// pass waits for output and for room, and passes a chunk on.
//
// A read gives EIO when nobody has the other side open, after all buffered
// output has been read. While the process lives that is no end: somebody may
// open the terminal again. Once it has been reaped it is.
func (r *ttyReader) pass() error {
	if err := r.flush(r.pump); err != nil {
		return err
	}
	room, atEnd := false, false
	if err := r.src.raw.Read(func(master uintptr) bool {
		var some, hup bool
		some, hup, room = pollBoth(int(master), r.dst.fd)
		// The pty's output passes through a work queue, but poll flushes it
		// (n_tty_poll), so what was written before is seen here.
		atEnd = !some && r.at() >= exited && (hup || r.hungUp())
		return some || atEnd
	}); err != nil {
		return err
	}
	if atEnd {
		return errEnd
	}
	if !room {
		return r.dst.raw.Write(func(dst uintptr) bool { return ready(int(dst), unix.POLLOUT) })
	}
	buf := ttyBuffers.Get().(*[ttyChunk]byte)
	defer ttyBuffers.Put(buf)
	n, err := read(r.src.fd, buf[:])
	switch {
	case n > 0:
		r.write(r.pump, buf[:n])
		return nil
	case err == nil:
		return errEnd
	case err == unix.EAGAIN, err == unix.EIO:
		return nil
	}
	return err
}

// rest passes on what can be had without waiting, at most what a pty holds.
func (r *ttyReader) rest() {
	var buf [ttyChunk]byte
	for left := 128 << 10; left > 0 && r.flushNow(r.pump); {
		n, err := read(r.src.fd, buf[:])
		if err != nil || n <= 0 {
			return
		}
		r.write(r.pump, buf[:n])
		left -= n
	}
}

// hungUp tells that the session that had the terminal is gone: its leader's
// exit hung the terminal up, and no descriptor opened before can write any more
// (disassociate_ctty, tty_vhangup_session). It matters when a background process
// still holds such a descriptor: there is no EIO then.
func (r *ttyReader) hungUp() bool { return r.session && !hasSession(r.src.fd) }

func hasSession(master int) bool {
	_, err := unix.IoctlGetInt(master, unix.TIOCGSID)
	return err == nil
}

// ttyWriter passes the client's input on to a terminal.
type ttyWriter struct {
	*pump
	pending
	midline bool // the last byte passed on did not end a line
}

func newTTYWriter(name string, src, master *end, log func(string, ...any)) *ttyWriter {
	w := &ttyWriter{pump: newPump(name, src, master, log)}
	w.pump.pass, w.pump.last = func(*pump) error { return w.pass() }, func(*pump) {}
	return w
}

func (w *ttyWriter) pass() error {
	if err := w.flush(w.pump); err != nil {
		return err
	}
	room := false
	if err := w.src.raw.Read(func(src uintptr) bool {
		some, hup, out := pollBoth(int(src), w.dst.fd)
		room = out
		return some || hup
	}); err != nil {
		return err
	}
	if !room {
		return w.dst.raw.Write(func(dst uintptr) bool { return ready(int(dst), unix.POLLOUT) })
	}
	buf := ttyBuffers.Get().(*[ttyChunk]byte)
	defer ttyBuffers.Put(buf)
	n, err := read(w.src.fd, buf[:])
	switch {
	case n > 0:
		w.midline = buf[n-1] != '\n' && buf[n-1] != '\r'
		w.write(w.pump, buf[:n])
		return nil
	case err == nil:
		w.endOfInput()
		return errEnd
	case err == unix.EAGAIN:
		return nil
	}
	return err
}

// endOfInput types the terminal's end-of-file character: a terminal has no
// other way to say that nothing more will come. In the middle of a line the
// first one only hands over the line (termios(3), VEOF).
func (w *ttyWriter) endOfInput() {
	t, err := unix.IoctlGetTermios(w.dst.fd, unix.TCGETS)
	if err != nil || t.Cc[unix.VEOF] == 0 {
		return
	}
	eof := []byte{t.Cc[unix.VEOF], t.Cc[unix.VEOF]}
	if !w.midline || t.Lflag&unix.ICANON == 0 {
		eof = eof[:1]
	}
	w.write(w.pump, eof)
	w.flush(w.pump)
}

// pending is what was read but not yet taken by the other side. It is empty
// nearly always: a chunk is read only when there is room for it.
type pending struct {
	mu    sync.Mutex // State reads it while the pump runs
	bytes []byte
}

// write passes b on; what the other side does not take now is kept. A sink that
// fails loses what it was given: the process must not stop because of it.
func (k *pending) write(p *pump, b []byte) {
	n, err := write(p.dst.fd, b)
	if err == nil || err == unix.EAGAIN {
		k.set(append([]byte(nil), b[n:]...))
		return
	}
	k.set(nil)
	// EIO: nobody has the terminal open, so nobody would have read it.
	if err != unix.EIO {
		p.failed.Do(func() { p.log("%s: output is lost: %v", p.name, err) })
	}
}

// flush waits until what is kept has been taken.
func (k *pending) flush(p *pump) error {
	for len(k.bytes) > 0 {
		if err := p.dst.raw.Write(func(dst uintptr) bool { return ready(int(dst), unix.POLLOUT) }); err != nil {
			return err
		}
		k.write(p, k.bytes)
	}
	return nil
}

// flushNow tells whether what is kept has been taken, without waiting.
func (k *pending) flushNow(p *pump) bool {
	if len(k.bytes) > 0 {
		k.write(p, k.bytes)
	}
	return len(k.bytes) == 0
}

func (k *pending) set(b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(b) == 0 {
		b = nil
	}
	k.bytes = b
}

// copied returns a copy of what is kept.
func (k *pending) copied() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]byte(nil), k.bytes...)
}

// pollBoth asks with one call whether there is something to read in src,
// whether src has been hung up, and whether dst takes something.
func pollBoth(src, dst int) (some, hup, room bool) {
	fds := []unix.PollFd{{Fd: int32(src), Events: unix.POLLIN}, {Fd: int32(dst), Events: unix.POLLOUT}}
	if !poll(fds) {
		return false, false, false
	}
	return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0, fds[1].Revents != 0
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// write writes to a descriptor that may be non-blocking and returns how much
// was taken.
func write(fd int, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Write(fd, b[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
