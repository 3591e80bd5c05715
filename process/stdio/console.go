package stdio

// This file has the terminal: the socket by which the OCI runtime hands over a
// pty's master (runc's docs/terminals.md), and the master once it is here.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into a sockaddr_un (unix(7)), without the final
// zero.
const maxSocketPath = 107

// consoleSocket is where one terminal is received.
type consoleSocket struct {
	path     string // for the OCI runtime
	file     string // as it is to be removed
	dir      *os.File
	listener *net.UnixListener
}

var consoles atomic.Uint64

// newConsoleSocket listens in dir, which only the shim's user can enter. A path
// that is too long for a socket is named through a descriptor of ours.
func newConsoleSocket(dir string) (*consoleSocket, error) {
	name := "tty-" + strconv.FormatUint(consoles.Add(1), 10) + ".sock"
	c := &consoleSocket{path: filepath.Join(dir, name), file: filepath.Join(dir, name)}
	os.Remove(c.file) // of an earlier shim with the same bundle
	if len(c.path) > maxSocketPath {
		fd, err := open(dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, fmt.Errorf("make console socket: %w", &os.PathError{Op: "open", Path: dir, Err: err})
		}
		c.dir = os.NewFile(uintptr(fd), dir)
		c.path = fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), fd, name)
	}
	var err error
	c.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.path, Net: "unix"})
	if err != nil {
		closeFile(&c.dir)
		return nil, fmt.Errorf("make console socket: %w", err)
	}
	c.listener.SetUnlinkOnClose(false)
	return c, nil
}

func (c *consoleSocket) close() {
	c.listener.Close()
	os.Remove(c.file)
	closeFile(&c.dir)
}

// receive takes the master of a terminal from the OCI runtime. The caller owns
// the result, which is on the netpoller.
func (c *consoleSocket) receive(ctx context.Context) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { c.listener.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := c.listener.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("the OCI runtime sent no terminal: %w", errors.Join(context.Cause(ctx), err))
	}
	defer conn.Close()
	stopRead := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stopRead()
	// The message is the name of the terminal, of any length; one descriptor.
	name, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(8*4))
	_, n, _, _, err := conn.ReadMsgUnix(name, control)
	if err != nil {
		return nil, fmt.Errorf("the OCI runtime sent no terminal: %w", errors.Join(context.Cause(ctx), err))
	}
	fds, err := descriptors(control[:n])
	if err != nil {
		return nil, fmt.Errorf("the OCI runtime sent no terminal: %w", err)
	}
	for _, fd := range fds[1:] {
		unix.Close(fd)
	}
	if _, err := unix.IoctlGetTermios(fds[0], unix.TCGETS); err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("what the OCI runtime sent is no terminal: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// descriptors returns at least one descriptor out of a control message. ReadMsgUnix
// has set them to be closed on exec.
func descriptors(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, rights...)
		}
	}
	if len(fds) == 0 {
		return nil, errors.New("the message holds no descriptor")
	}
	return fds, nil
}

// terminal is the master side of a process's terminal.
type terminal struct {
	file *os.File
	// users are the pumps that have not ended; the last one closes the file.
	users atomic.Int32
}

// join makes an end for one more pump.
func (t *terminal) join() *end {
	t.users.Add(1)
	return borrowed(t.file)
}

func (t *terminal) leave() {
	if t.users.Add(-1) == 0 {
		t.file.Close()
	}
}

func (t *terminal) resize(width, height uint16) error {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	if raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	}) != nil {
		return nil // closed, and gone with it is whoever would look
	}
	return err
}

// connect gives the terminal to the relay of its output. The caller holds s.mu
// and starts it.
func (s *Streams) connect(master *os.File) error {
	s.console.close()
	t := &terminal{file: master}
	s.console, s.terminal = nil, t
	if s.state.Width != 0 || s.state.Height != 0 {
		if err := t.resize(s.state.Width, s.state.Height); err != nil {
			s.options.Log("size of the terminal: %v", err)
		}
	}
	out := s.coming
	s.coming = nil
	out.atEnd = t.leave
	if err := out.from(ttySource{t.join()}); err != nil {
		out.close()
		t.leave()
		return err
	}
	s.outputs = append(s.outputs, out.pump)
	return nil
}

// disconnect gives up a terminal that has not come. The caller holds s.mu.
func (s *Streams) disconnect() {
	if s.console != nil {
		s.console.close()
		s.console = nil
	}
	if s.coming != nil {
		s.coming.close()
		s.coming = nil
	}
}
