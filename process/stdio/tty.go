package stdio

// This file passes bytes between a terminal's master and the client. A pty
// cannot be handed over: the client made FIFOs. Bytes go through a small buffer
// that is taken only when there is something to read and room to write it, so an
// idle terminal, or one whose client is away, holds none.

import "golang.org/x/sys/unix"

// ttyChunk is what the line discipline gives at most for one read, and what a
// FIFO that is ready for writing takes as a whole (PIPE_BUF, pipe(7)).
const ttyChunk = 4096

var ttyBuffers = buffers(ttyChunk)

// newTTYReader passes the output of a terminal on to dst.
func newTTYReader(name string, master, dst *end, log func(string, ...any)) *ttyReader {
	r := &ttyReader{pump: newPump(name, master, dst, log)}
	r.pump.pass, r.pump.last = func(*pump) error { return r.pass() }, func(*pump) { r.rest() }
	r.pump.hungUp = r.hungUp
	return r
}

type ttyReader struct {
	*pump
	pending
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
		// Asked before the poll, which then sees all that was written before the
		// end. The pty's output passes through a work queue, but poll flushes it
		// (n_tty_poll).
		ended, cut := r.at() >= exited, r.hungUp()
		var some, hup bool
		some, hup, room = pollBoth(int(master), r.dst.fd)
		atEnd = !some && (ended && hup || cut)
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
	buf := ttyBuffers.Get().(*[]byte)
	defer ttyBuffers.Put(buf)
	n, err := read(r.src.fd, *buf)
	switch {
	case n > 0:
		r.write(r.pump, (*buf)[:n])
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

// hungUp tells that the process has been reaped and the session that had the
// terminal is gone: its leader's exit hung the terminal up, and no descriptor
// opened before can write any more (disassociate_ctty, tty_vhangup_session). It
// matters when a background process still holds such a descriptor: there is no
// EIO then.
func (r *ttyReader) hungUp() bool { return r.at() >= exited && !hasSession(r.src.fd) }

func hasSession(master int) bool {
	_, err := unix.IoctlGetInt(master, unix.TIOCGSID)
	return err == nil
}

// newTTYWriter passes the client's input on to a terminal.
func newTTYWriter(name string, src, master *end, log func(string, ...any)) *ttyWriter {
	w := &ttyWriter{}
	w.copier = newCopier(name, src, master, &ttyBuffers, log)
	w.passed = func(b []byte) { w.midline = b[len(b)-1] != '\n' && b[len(b)-1] != '\r' }
	w.ended = w.endOfInput
	w.last = func(*pump) {} // input that was not taken is not forced on a terminal that ends
	return w
}

type ttyWriter struct {
	*copier
	midline bool // the last byte passed on did not end a line
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
