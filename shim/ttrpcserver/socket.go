package ttrpcserver

// The socket of a connection, and how an answer is written to it. It is not one of
// package net: that would have Go's netpoller tell of each answer that the peer has
// taken, which wakes the process for nothing, and costs a kilobyte for each
// connection. That there is room is waited for only when there was none.

import (
	"errors"
	"net"
	"sync"
	"syscall"

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

// accept takes a connection that is there, or says EAGAIN.
func accept(listener syscall.RawConn) (fd int, err error) {
	var failed error
	err = listener.Control(func(own uintptr) {
		for failed = unix.EINTR; failed == unix.EINTR; {
			fd, _, failed = unix.Accept4(int(own), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		}
	})
	if err == nil {
		err = failed
	}
	return fd, err
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
		if sent == len(b) || failed != nil && failed != unix.EAGAIN {
			return sent, failed
		}
		if err := c.awaitRoom(); err != nil {
			return sent, err
		}
	}
}

// What a connection is watched for: requests, and room as long as it is waited for.
const (
	forRequests = unix.EPOLLIN | unix.EPOLLRDHUP
	forRoom     = forRequests | unix.EPOLLOUT
)

// awaitRoom returns when there may be room, or with what ends the wait.
func (c *conn) awaitRoom() error {
	s := c.server
	room := make(chan struct{}, 1)
	s.mu.Lock()
	watch, err := c.watch, c.mustNotWrite()
	if err == nil {
		c.room = room
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err = watch.Change(forRoom); err == nil {
		<-room
		err = watch.Change(forRequests)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.room = nil
	return errors.Join(c.mustNotWrite(), err)
}

// mustNotWrite tells why nothing is written any more. Called with server.mu held.
func (c *conn) mustNotWrite() error {
	switch {
	case c.dropped:
		return net.ErrClosed
	case c.server.hold >= holdAnswers:
		return errHeld
	}
	return nil
}

// wake wakes who waits on a channel of one place, if anybody does.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // he is woken already, or there is nobody
	}
}
