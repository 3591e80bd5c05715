package ttrpcserver

// How connections come in: the accept loop, what it does when the process or
// the system is out of something, and who may connect.

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cleatrun/cleat/oci/ready"
	"golang.org/x/sys/unix"
)

// A failing accept is tried again after a pause that doubles from the first
// to the second of these.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = time.Second
)

// Serve accepts connections until Close, when it returns ErrClosed, or until
// the listener fails for good. It closes the listener in the end. Whether
// closing removes the socket's file is the listener's setting. Peers of another
// user than the process's effective one are refused. Several listeners may be
// served at once.
func (s *Server) Serve(l *net.UnixListener) error {
	defer l.Close()
	arrived := make(chan struct{}, 1)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return ErrClosed
	}
	s.listeners[l] = arrived
	s.accepting++
	s.ends.Add(1)
	s.mu.Unlock()
	defer s.ends.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.accepting--
		s.still.Broadcast()
		s.mu.Unlock()
	}()

	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("accept on %s: %w", l.Addr(), err)
	}
	var watch *ready.Watch
	defer func() {
		if watch != nil {
			watch.Stop()
		}
	}()
	var pause time.Duration
	for s.accepts() {
		fd, err := -1, error(nil)
		if watch == nil {
			watch, err = ready.On(l, unix.EPOLLIN, func() { wake(arrived) })
		}
		if err == nil {
			fd, err = accept(raw)
		}
		switch {
		case err == unix.EAGAIN:
			select {
			case <-arrived:
			case <-s.closed:
			}
			continue
		case err != nil:
			select {
			case <-s.closed:
				return ErrClosed
			default:
			}
			if !passing(err) {
				return fmt.Errorf("accept on %s: %w", l.Addr(), err)
			}
			if pause == 0 {
				s.options.Log("accept on %s: %v; trying again until it works", l.Addr(), err)
			}
			pause = min(max(2*pause, firstPause), lastPause)
			if !s.rest(pause) {
				return ErrClosed
			}
			continue
		}
		if pause > 0 {
			s.options.Log("accepting on %s again", l.Addr())
			pause = 0
		}
		if err = s.check(fd); err != nil {
			unix.Close(fd)
		} else {
			err = s.connect(fd)
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			s.options.Log("connection refused: %v", err)
		}
	}
	return ErrClosed
}

// rest waits that long, or until the server is closed, when it returns false.
func (s *Server) rest(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closed:
		return false
	}
}

// passing tells the errors of accept(2) and epoll_ctl(2) that are over when somebody
// gives something back, or that concern one connection only.
func passing(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC,
		unix.ECONNABORTED, unix.EINTR, unix.EAGAIN, unix.EPERM, unix.EPROTO,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// check refuses a peer that was not of this process's effective user when it
// connected (unix(7), SO_PEERCRED).
func (s *Server) check(fd int) error {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("credentials of the peer: %w", err)
	}
	if peer.Uid != s.uid {
		return fmt.Errorf("peer is uid %d (pid %d), not %d", peer.Uid, peer.Pid, s.uid)
	}
	return nil
}
