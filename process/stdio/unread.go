package stdio

// This file waits for clients to read what is in their FIFOs. That a stream is
// at its end for the shim does not mean that it is for the client, and
// containerd's Go client closes an exec's FIFOs as soon as the exec's Delete is
// answered (cio.Cancel), read or not.

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Unread is how many bytes of output the client has not read, in its FIFOs or on the
// way to them; of a terminal that has not hung up yet it is never 0. What a policy
// keeps for the client is not counted.
func (s *Streams) Unread() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, hold := range s.holds {
		if raw, err := hold.SyscallConn(); err == nil {
			n += unreadOf(raw)
		}
	}
	if !s.attached {
		return n
	}
	for _, p := range s.outputs {
		if p.ended() {
			continue
		}
		n += unreadOf(p.source().raw)
		if s.terminal != nil {
			n++
		}
	}
	return n
}

// unreadOf is what there is to be read from a file, which may be closed meanwhile.
func unreadOf(file syscall.RawConn) (n int) {
	file.Control(func(fd uintptr) { n = unread(int(fd)) })
	return n
}

// awaitReaders waits until the client's FIFOs are empty, or have no reader, or
// until ctx ends. The shim's own hold on them is given up.
func (s *Streams) awaitReaders(ctx context.Context) error {
	s.mu.Lock()
	holds := s.holds
	s.holds = nil
	s.mu.Unlock()
	var failures error
	for _, hold := range holds {
		failures = errors.Join(failures, awaitReader(ctx, hold))
	}
	return failures
}

// awaitReader does so for one FIFO, and closes hold.
func awaitReader(ctx context.Context, hold *os.File) error {
	defer hold.Close()
	if unread(int(hold.Fd())) == 0 {
		return nil
	}
	// Only a write end can tell whether there is another reader than ourselves:
	// POLLERR says that there is none (poll(2)). It holds the end of the stream
	// back only while there is something before that.
	writer, err := open("/proc/self/fd/"+strconv.Itoa(int(hold.Fd())), unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	defer unix.Close(writer)
	hold.Close()
	// The kernel tells nobody that a pipe has become empty.
	for pause := time.Millisecond; unread(writer) > 0; pause = min(2*pause, 10*time.Millisecond) {
		if poll(writer, 0)&unix.POLLERR != 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
