package ttrpcserver

// The socket of a connection. It is not one of package net: that would have Go's
// netpoller tell of each answer that the peer has taken, which wakes the process for
// nothing, and costs a kilobyte for each connection. Only a write for which there is
// no room waits on the netpoller, by a duplicate that is there meanwhile.

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket owns a non-blocking descriptor. It is a syscall.Conn, and its own
// syscall.RawConn that never waits.
type socket struct {
	mu sync.RWMutex // held for writing by Close, so that nobody meets another's number
	fd int          // -1 when it is closed
}

func (s *socket) SyscallConn() (syscall.RawConn, error) { return s, nil }

// Control calls f with the descriptor, which stays open until f returns.
func (s *socket) Control(f func(fd uintptr)) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(s.fd))
	return nil
}

func (s *socket) Read(func(fd uintptr) bool) error  { return errors.ErrUnsupported }
func (s *socket) Write(func(fd uintptr) bool) error { return errors.ErrUnsupported }

func (s *socket) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// duplicate is a file of the same non-blocking socket, on the netpoller.
func duplicate(socket syscall.Conn) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// accept waits for the next connection, until the deadline of a duplicate of the
// listener. (Package net would want to make the connection one of its own.)
func accept(listener *os.File) (fd int, err error) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return -1, err
	}
	var failed error
	err = raw.Read(func(own uintptr) bool {
		for {
			fd, _, failed = unix.Accept4(int(own), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return -1, err
	}
	return fd, nil
}

// send writes all, and waits for room where there is none, until Commit or the end
// of the connection.
func (c *conn) send(b []byte) (sent int, err error) {
	for {
		n := 0
		var failed error
		if err := c.sock.Control(func(fd uintptr) { n, failed = sendNow(fd, b[sent:]) }); err != nil {
			return sent, err
		}
		sent += n
		if failed != nil && failed != unix.EAGAIN {
			return sent, failed
		}
		if sent < len(b) {
			n, err = c.sendSlowly(b[sent:])
			sent += n
		}
		if err != nil || sent == len(b) {
			return sent, err
		}
	}
}

// sendSlowly writes all, on the netpoller. Where there is no descriptor for that it
// waits a moment and writes nothing.
func (c *conn) sendSlowly(b []byte) (int, error) {
	slow, err := duplicate(&c.sock)
	if err != nil {
		time.Sleep(roomGap)
	} else {
		defer slow.Close()
	}
	if err := c.waits(slow); err != nil || slow == nil {
		return 0, err
	}
	n, err := slow.Write(b)
	c.server.mu.Lock()
	c.slow = nil
	c.server.mu.Unlock()
	return n, err
}

// roomGap is how often is looked for room that nobody tells of.
const roomGap = 10 * time.Millisecond

// waits notes what a write waits on, unless it must not wait any more.
func (c *conn) waits(slow *os.File) error {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.dropped:
		return net.ErrClosed
	case s.hold >= holdAnswers:
		return os.ErrDeadlineExceeded
	}
	c.slow = slow
	return nil
}

// interrupt ends the wait of a write. Called with server.mu held.
func (c *conn) interrupt() {
	if c.slow != nil {
		c.slow.SetWriteDeadline(time.Unix(1, 0))
	}
}
