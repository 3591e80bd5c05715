package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long Wait lets output of a command arrive that a
// descendant still holds open after the command itself ended.
const outputGrace = 2 * time.Second

// Command is a program the shim itself has started: an OCI runtime, a logger.
type Command struct {
	cmd   *exec.Cmd
	pidfd *os.File
	end   func()
}

// Start starts cmd and owns its process. Descendants that it leaves behind
// are not taken for orphans before Wait has returned.
func Start(cmd *exec.Cmd) (*Command, error) {
	return start(cmd, Launching())
}

// Spawn starts a program that runs for long beside the containers, such as a
// logger: it is owned, but does not hold up the reaping of orphans, so what
// it leaves behind is an orphan at once.
func Spawn(cmd *exec.Cmd) (*Command, error) {
	end := Launching()
	defer end()
	return start(cmd, func() {})
}

func start(cmd *exec.Cmd, end func()) (*Command, error) {
	pidfd := -1
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.PidFD = &pidfd
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = outputGrace
	}
	if err := cmd.Start(); err != nil {
		end()
		return nil, err
	}
	family.own(cmd.Process.Pid)
	c := &Command{cmd: cmd, end: end}
	if pidfd >= 0 {
		unix.SetNonblock(pidfd, true)
		c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return c, nil
}

// Wait returns when the program has ended and was reaped, or with ctx's error
// when that comes first; the process then goes on, is still owned, and must
// be waited for again. The last Wait is the one that returns a state.
func (c *Command) Wait(ctx context.Context) (*os.ProcessState, error) {
	if err := c.ended(ctx); err != nil {
		return nil, err
	}
	// It has ended, so this reaps at once; what can take longer is bounded by
	// WaitDelay. Its error repeats what the state tells.
	c.cmd.Wait()
	if c.pidfd != nil {
		c.pidfd.Close()
	}
	family.disown(c.cmd.Process.Pid)
	c.end()
	return c.cmd.ProcessState, nil
}

// ended waits on the netpoller until the pidfd is readable. Without a pidfd
// (a kernel that refuses them) the reaping Wait blocks a thread instead.
func (c *Command) ended(ctx context.Context) error {
	if c.pidfd == nil {
		return nil
	}
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		err = conn.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, 0)
			return n > 0 || (err != nil && err != unix.EINTR)
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// The deadline may be that of an earlier Wait, set late.
		c.pidfd.SetReadDeadline(time.Time{})
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// PID of the program's process.
func (c *Command) PID() int { return c.cmd.Process.Pid }

// Success tells, once Wait has returned a state, whether the program ended
// with status 0.
func (c *Command) Success() bool { return c.cmd.ProcessState != nil && c.cmd.ProcessState.Success() }

// Signal sends a signal to the program's process; os.ErrProcessDone when it
// was reaped.
func (c *Command) Signal(signal syscall.Signal) error {
	if c.pidfd == nil {
		return c.cmd.Process.Signal(signal)
	}
	return signalPidfd(c.pidfd, signal)
}
