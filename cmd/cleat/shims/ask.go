package shims

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cleatrun/cleat/shim/control/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Ask connects to a shim and asks it. It takes no longer than limit, whatever the
// shim does. The error is a sentence about the shim, without its name.
func (s *Shim) Ask(ctx context.Context, limit time.Duration, question func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if p := s.now(); p.Stopped {
		return &silence{"does not answer: it is " + p.State, context.DeadlineExceeded}
	}
	err := s.ask(ctx, question)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, unix.EAGAIN): // EAGAIN: its backlog is full
		words := fmt.Sprintf("does not answer within %s", limit)
		if p := s.now(); p.State != "" {
			words += " (it is " + p.State + ")"
		}
		return &silence{words, err}
	case errors.As(err, new(*silence)):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ECONNREFUSED):
		return &silence{"cannot be reached: nobody listens on " + s.Socket, err}
	case errors.Is(err, fs.ErrNotExist) && s.Socket != "":
		return &silence{"cannot be reached: its socket " + s.Socket + " is gone", err}
	case errors.Is(err, fs.ErrPermission):
		return &silence{fmt.Sprintf("belongs to user %d, who alone may ask it", s.Process.User), err}
	case errors.Is(err, ttrpc.ErrClosed):
		if s.PID != 0 && s.Process.User != os.Geteuid() {
			return &silence{fmt.Sprintf("belongs to user %d, who alone may ask it", s.Process.User), fs.ErrPermission}
		}
		return &silence{"has closed the connection without an answer", err}
	case errdefs.IsNotImplemented(err):
		return &silence{"does not know this question: it is of another make or version", err}
	}
	return err
}

// silence is why a shim has no answer.
type silence struct {
	words string
	err   error
}

func (s *silence) Error() string { return s.words }
func (s *silence) Unwrap() error { return s.err }

// Ended tells that the process is not there any more.
func (s *Shim) Ended() bool { return s.PID != 0 && !s.now().Started.Equal(s.Process.Started) }

// now is the process at this moment, empty when it is not to be seen.
func (s *Shim) now() Process {
	if s.PID == 0 {
		return Process{}
	}
	p, err := procfs.NewProc(s.PID)
	if err != nil {
		return Process{}
	}
	process, err := readProcess(p)
	if err != nil {
		return Process{}
	}
	return process
}

func (s *Shim) ask(ctx context.Context, question func(context.Context, *client.Client) error) error {
	if s.Socket == "" && s.Process.User != os.Geteuid() {
		return fs.ErrPermission
	}
	if s.Socket == "" {
		if _, err := os.ReadDir(procPath(s.PID, "fd")); errors.Is(err, fs.ErrPermission) {
			return &silence{"may not be looked into from here: it is in a user namespace, where nsenter(1) leads", err}
		}
		return &silence{"has no socket that can be seen from here", fs.ErrNotExist}
	}
	address, done, err := s.reach()
	if err != nil {
		return err
	}
	defer done()
	c, err := client.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err = question(ctx, c); errors.Is(err, ttrpc.ErrClosed) {
		return err // ToNative would hide it
	}
	return errgrpc.ToNative(err)
}

// reach is a path of the socket from here: the shim may be in another mount
// namespace.
func (s *Shim) reach() (path string, done func(), err error) {
	if s.PID == 0 || SameMounts(s.PID) {
		return s.Socket, func() {}, nil
	}
	dir, err := openBelow(s.PID, filepath.Dir(s.Socket), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", nil, err
	}
	// Short enough for a socket's path, whatever the folder is called.
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(s.Socket)), func() { dir.Close() }, nil
}
