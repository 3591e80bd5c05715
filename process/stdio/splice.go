package stdio

// This file passes bytes on from pipe to pipe inside the kernel: none comes
// into this process, so there is nothing to keep.

import (
	"golang.org/x/sys/unix"
)

// splicer passes what comes out of src on to dst.
type splicer struct {
	*pump
	src, dst *end
	// input tells that it is the process's, whose loss is nobody's.
	input bool
}

func newSplicer(name string, src, dst *end, log func(string, ...any)) *splicer {
	s := &splicer{pump: newPump(name, log), src: src, dst: dst}
	s.passer = s
	return s
}

// pass moves what is in src to dst, waiting for either as needed.
//
// A splice between pipes does not tell which of the two it would have to wait
// for, so src is asked: if there is something to read, dst is full. All of it
// happens inside the RawConn callbacks, because the netpoller is edge-triggered
// and forgets what happened before the callback began.
func (s *splicer) pass() error {
	var n int64
	var err error
	full := false
	if werr := s.src.raw.Read(func(src uintptr) bool {
		n, err = spliceOnce(int(src), s.dst.fd, spliceMax)
		full = err == unix.EAGAIN && ready(int(src), unix.POLLIN)
		return err != unix.EAGAIN || full
	}); werr != nil {
		return werr
	}
	if full {
		if werr := s.dst.raw.Write(func(dst uintptr) bool {
			n, err = spliceOnce(s.src.fd, int(dst), spliceMax)
			return err != unix.EAGAIN || !ready(s.src.fd, unix.POLLIN)
		}); werr != nil {
			return werr
		}
	}
	switch {
	case err == unix.EAGAIN, err == nil && n > 0:
		return nil
	case err == nil:
		return errEnd
	case err == unix.EPIPE: // the client of closed streams is gone
		s.tellLost()
		return errEnd
	}
	return err
}

// last passes on what is in src now. What comes after is not waited for: a
// process that never stops writing would otherwise keep the pump for ever.
func (s *splicer) last() {
	for rest := unread(s.src.fd); rest > 0; {
		n, err := spliceOnce(s.src.fd, s.dst.fd, rest)
		if err != nil || n <= 0 {
			break
		}
		rest -= int(n)
	}
	s.tellLost()
}

func (s *splicer) tellLost() {
	if n := unread(s.src.fd); n > 0 && !s.input {
		s.log("%s: %d bytes of output are lost: nobody has read them", s.name, n)
	}
}

// close closes the write end first: while the read end is open nothing of a
// pipe is thrown away.
func (s *splicer) close() {
	s.dst.close()
	s.src.close()
}

func (s *splicer) wake() {
	s.src.file.SetReadDeadline(past)
	s.dst.file.SetWriteDeadline(past)
}

func (s *splicer) rearm() {
	s.src.file.SetReadDeadline(never)
	s.dst.file.SetWriteDeadline(never)
}

func (s *splicer) sourceGone() bool { return pipeHungUp(s.src.fd) }
func (s *splicer) source() *end     { return s.src }

// spliceMax is what one splice is asked for; a pipe seldom holds more.
const spliceMax = 1 << 20

func spliceOnce(src, dst, max int) (int64, error) {
	for {
		n, err := unix.Splice(src, nil, dst, nil, max, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return n, err
		}
	}
}
