package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lock makes one process at a time look at, make or remove one socket: between
// bind(2) and listen(2), and between a refused connection and the removal of
// the file, another would draw wrong conclusions. The kernel releases it when
// its holder dies. The lock's file lives only as long as somebody holds it.
type lock struct {
	fd   int
	path string
}

// lockPoll is how often a lock that is taken is tried again. Only the
// short-lived actions and an ending daemon ever wait for one.
const lockPoll = 2 * time.Millisecond

// lockSocket waits for the lock of the socket at path, at most for limit.
func lockSocket(path string, limit time.Duration) (*lock, error) {
	path += ".lock"
	for deadline := time.Now().Add(limit); ; time.Sleep(lockPoll) {
		l, err := tryLock(path)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("lock %s is held by somebody else for more than %s: %w", path, limit, errdefs.ErrUnavailable)
		}
	}
}

// tryLock returns EWOULDBLOCK when the lock is taken, or was released and
// removed at this moment.
func tryLock(path string) (*lock, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	var held, named unix.Stat_t
	err = unix.Fstat(fd, &held)
	if err == nil {
		err = unix.Stat(path, &named)
	}
	if err != nil || held.Dev != named.Dev || held.Ino != named.Ino {
		unix.Close(fd)
		return nil, unix.EWOULDBLOCK
	}
	return &lock{fd: fd, path: path}, nil
}

func (l *lock) release() {
	unix.Unlink(l.path)
	unix.Close(l.fd)
}
