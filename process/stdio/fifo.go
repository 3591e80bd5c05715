package stdio

// This file holds what the kernel's pipes need: how a client's FIFO is opened
// without ever waiting for the client and without touching anything that is
// no FIFO, and how pipes are made and grown.

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// node is a file that has been looked up but not opened: an O_PATH descriptor
// has no side effects on what it names (open(2)), so a device or a regular file
// in the place of a FIFO is not disturbed, and what is opened afterwards through
// it is what was checked.
type node struct {
	fd   int
	path string
	stat unix.Stat_t
}

// lookup finds the file of a stream. Links are followed, as containerd's own
// shim does. The caller must close the node.
func lookup(stream, path string) (*node, error) {
	fd, err := open(path, unix.O_PATH)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w: %w", stream, path, err, class(err))
	}
	n := &node{fd: fd, path: path}
	if err := unix.Fstat(fd, &n.stat); err != nil {
		n.close()
		return nil, fmt.Errorf("%s %q: %w", stream, path, err)
	}
	return n, nil
}

// lookupFIFO is lookup for a file that must be a FIFO.
func lookupFIFO(stream, path string) (*node, error) {
	n, err := lookup(stream, path)
	if err != nil {
		return nil, err
	}
	if n.stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		n.close()
		return nil, invalid(stream, path, "it is not a FIFO")
	}
	return n, nil
}

func (n *node) close() { unix.Close(n.fd) }

// open opens the node's file as an open file description of its own.
func (n *node) open(flags int) (int, error) {
	fd, err := open("/proc/self/fd/"+strconv.Itoa(n.fd), flags)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w: %w", n.path, err, class(err))
	}
	return fd, nil
}

// reader opens a FIFO's read end, which never waits for a writer.
//
// With keep the descriptor is only held, never read: it is in blocking mode,
// because os.NewFile puts a non-blocking one into the netpoller and every write
// to the FIFO would then wake the shim.
func (n *node) reader(keep bool) (*os.File, error) {
	fd, err := n.open(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return newEnd(fd, n.path, keep)
}

// writer opens a FIFO's write end; a read end must be open already, or the
// error is ENXIO. keep is as in reader.
func (n *node) writer(keep bool) (*os.File, error) {
	fd, err := n.open(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return newEnd(fd, n.path, keep)
}

// newEnd makes an os.File of a non-blocking descriptor, which it owns. With
// blocking the descriptor is made blocking first and stays out of the netpoller.
func newEnd(fd int, name string, blocking bool) (*os.File, error) {
	if blocking {
		if err := unix.SetNonblock(fd, false); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pipeToChild and pipeFromChild make a pipe of which the process gets the
// blocking end and the shim the other, which is on the netpoller. owner is the
// user who may open the pipe again by /dev/stdout and the like; 0 leaves it.
func pipeFromChild(name string, o Options) (ours, childs *os.File, err error) {
	fds, err := newPipe(o)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if o.DrainFirst {
		grow(fds[1])
	}
	if childs, err = newEnd(fds[1], name, true); err != nil {
		unix.Close(fds[0])
		return nil, nil, err
	}
	ours, _ = newEnd(fds[0], name, false)
	return ours, childs, nil
}

func pipeToChild(name string, o Options) (ours, childs *os.File, err error) {
	fds, err := newPipe(o)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if childs, err = newEnd(fds[0], name, true); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	ours, _ = newEnd(fds[1], name, false)
	return ours, childs, nil
}

func newPipe(o Options) (fds [2]int, err error) {
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fds, fmt.Errorf("make a pipe: %w", err)
	}
	if o.UID == 0 && o.GID == 0 {
		return fds, nil
	}
	if err := unix.Fchown(fds[0], o.UID, o.GID); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return fds, fmt.Errorf("give a pipe to %d:%d: %w", o.UID, o.GID, err)
	}
	return fds, nil
}

// pipeMax is the largest pipe that this host gives without CAP_SYS_RESOURCE
// (proc_sys_fs(5)).
var pipeMax = sync.OnceValue(func() int {
	const usual = 1 << 20
	data, err := os.ReadFile("/proc/sys/fs/pipe-max-size")
	if err != nil {
		return usual
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && n > 0 {
		return n
	}
	return usual
})

// grow makes a pipe as large as the host allows. A user without privileges may
// be at the limit of pipe-user-pages-soft; then the pipe stays as it is.
func grow(fd int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < pipeMax() {
		unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeMax())
	}
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// class is the errdefs class of an error of open(2), stat(2) and execve(2) on
// a path that the client named.
func class(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errdefs.ErrNotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return errdefs.ErrPermissionDenied
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO),
		errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EINVAL):
		return errdefs.ErrInvalidArgument
	}
	return errdefs.ErrUnknown
}
