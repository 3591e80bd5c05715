package stdio

// This file knows what output comes out of: a pipe, or the master of a
// terminal, and how each of them ends.

import (
	"sync"

	"golang.org/x/sys/unix"
)

// source is where a relay reads from.
type source interface {
	// look asks without waiting whether there is something to read, or whether
	// the source is at its end.
	look(at stage) (some, end bool)
	// rest is how much to read at most for all that is there now.
	rest() int
	// chunk is what is read at once.
	chunk() *sync.Pool
	// gone tells that nobody can write to it any more.
	gone(at stage) bool
	descriptor() *end
}

// ttyChunk is what the line discipline gives at most for one read, and what a
// FIFO that is ready for writing takes as a whole (PIPE_BUF, pipe(7)).
const ttyChunk = 4096

var ttyBuffers, pipeBuffers = buffers(ttyChunk), buffers(64 << 10)

func buffers(size int) sync.Pool {
	return sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// pipeSource is the read end of a pipe.
type pipeSource struct{ *end }

func (s pipeSource) look(stage) (some, end bool) {
	events := poll(s.fd, unix.POLLIN)
	return events&unix.POLLIN != 0, events&unix.POLLIN == 0 && events != 0
}

func (s pipeSource) rest() int         { return unread(s.fd) }
func (s pipeSource) chunk() *sync.Pool { return &pipeBuffers }
func (s pipeSource) gone(stage) bool   { return pipeHungUp(s.fd) }
func (s pipeSource) descriptor() *end  { return s.end }

func pipeHungUp(fd int) bool { return poll(fd, unix.POLLIN)&(unix.POLLHUP|unix.POLLERR) != 0 }

// ttySource is the master of a terminal. It cannot be handed over: the client
// made FIFOs.
type ttySource struct{ *end }

// look takes a hang-up for the end only when the process has been reaped.
//
// A read gives EIO when nobody has the other side open, after all buffered
// output has been read. While the process lives that is no end: somebody may
// open the terminal again.
func (s ttySource) look(at stage) (some, end bool) {
	// Asked before the poll, which then sees all that was written before the
	// end. The pty's output passes through a work queue, but poll flushes it
	// (n_tty_poll).
	cut := s.cut(at)
	events := poll(s.fd, unix.POLLIN)
	some = events&unix.POLLIN != 0
	hungUp := events&(unix.POLLHUP|unix.POLLERR) != 0
	return some, !some && (cut || at >= exited && hungUp)
}

// cut tells that the process has been reaped and the session that had the
// terminal is gone: its leader's exit hung the terminal up, and no descriptor
// opened before can write any more (disassociate_ctty, tty_vhangup_session). It
// matters when a background process still holds such a descriptor: there is no
// EIO then.
func (s ttySource) cut(at stage) bool {
	if at < exited {
		return false
	}
	_, err := unix.IoctlGetInt(s.fd, unix.TIOCGSID)
	return err != nil
}

// rest is more than a pty holds.
func (s ttySource) rest() int          { return 128 << 10 }
func (s ttySource) chunk() *sync.Pool  { return &ttyBuffers }
func (s ttySource) gone(at stage) bool { return s.cut(at) || pipeHungUp(s.fd) }
func (s ttySource) descriptor() *end   { return s.end }
