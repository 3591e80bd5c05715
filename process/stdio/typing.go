package stdio

// This file passes the client's input on to a terminal, through a small buffer
// that is taken only when there is something to read and room to write it.

import "golang.org/x/sys/unix"

// typist types what comes out of src on the terminal.
type typist struct {
	*pump
	src, master *end
	// pending was read but not yet taken by the terminal: nearly always nothing.
	pending []byte
	midline bool // the last byte typed did not end a line
	ended   bool // the end of the input was typed, too
}

func newTypist(name string, src, master *end, log func(string, ...any)) *typist {
	t := &typist{pump: newPump(name, log), src: src, master: master}
	t.passer = t
	return t
}

// pass waits for bytes and for room, and types a buffer of them.
func (t *typist) pass() error {
	if err := t.flush(); err != nil {
		return err
	}
	if t.ended {
		return errEnd
	}
	room := false
	if err := t.src.raw.Read(func(src uintptr) bool {
		room = ready(t.master.fd, unix.POLLOUT)
		return ready(int(src), unix.POLLIN)
	}); err != nil {
		return err
	}
	if !room {
		return t.master.raw.Write(func(master uintptr) bool { return ready(int(master), unix.POLLOUT) })
	}
	buf := ttyBuffers.Get().(*[]byte)
	defer ttyBuffers.Put(buf)
	n, err := read(t.src.fd, *buf)
	switch {
	case n > 0:
		t.midline = (*buf)[n-1] != '\n' && (*buf)[n-1] != '\r'
		t.write((*buf)[:n])
		return nil
	case err == nil:
		t.endOfInput()
		return nil
	case err == unix.EAGAIN:
		return nil
	}
	return err
}

// write keeps what the terminal does not take now. What fails is lost: EIO means
// that nobody has the terminal open, so nobody would have read it.
func (t *typist) write(b []byte) {
	n, err := write(t.master.fd, b)
	t.pending = nil
	if err == unix.EAGAIN {
		t.pending = append([]byte(nil), b[n:]...)
	} else if err != nil && err != unix.EIO {
		t.log("%s: input is lost: %v", t.name, err)
	}
}

// flush waits until what is kept has been taken.
func (t *typist) flush() error {
	for len(t.pending) > 0 {
		if err := t.master.raw.Write(func(master uintptr) bool { return ready(int(master), unix.POLLOUT) }); err != nil {
			return err
		}
		t.write(t.pending)
	}
	return nil
}

// endOfInput types the terminal's end-of-file character: a terminal has no
// other way to say that nothing more will come. In the middle of a line the
// first one only hands over the line (termios(3), VEOF).
func (t *typist) endOfInput() {
	t.ended = true
	settings, err := unix.IoctlGetTermios(t.master.fd, unix.TCGETS)
	if err != nil || settings.Cc[unix.VEOF] == 0 {
		return
	}
	eof := []byte{settings.Cc[unix.VEOF], settings.Cc[unix.VEOF]}
	if !t.midline || settings.Lflag&unix.ICANON == 0 {
		eof = eof[:1]
	}
	t.write(eof)
}

// last forces no input on a terminal that ends.
func (t *typist) last() {}

func (t *typist) close() {
	t.master.close()
	t.src.close()
}

func (t *typist) wake() {
	t.src.file.SetReadDeadline(past)
	t.master.file.SetWriteDeadline(past)
}

func (t *typist) rearm() {
	t.src.file.SetReadDeadline(never)
	t.master.file.SetWriteDeadline(never)
}

func (t *typist) sourceGone() bool { return pipeHungUp(t.src.fd) }
func (t *typist) source() *end     { return t.src }
