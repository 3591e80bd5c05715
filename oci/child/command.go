package child

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long output of a command may arrive that a descendant
// still holds open after the command itself ended.
const outputGrace = 2 * time.Second

// Command is a program the shim itself has started: an OCI runtime, a logger.
// It is reaped as soon as it has ended, whether or not anybody waits for it.
type Command struct {
	cmd   *exec.Cmd
	pidfd *os.File // nil on a kernel that refuses them
	done  chan struct{}

	mu     sync.Mutex
	ending bool // it has ended; what follows gives its number back
}

// Start starts cmd in a process group of its own and owns its process.
// Descendants that it leaves behind are not taken for orphans before Wait can
// return. When the context of cmd ends, the whole group is killed: a runtime
// may be a script, and may run hooks.
func Start(cmd *exec.Cmd) (*Command, error) {
	c := &Command{cmd: cmd}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if cmd.Cancel != nil {
		cmd.Cancel = c.killGroup
	}
	end := Launching()
	if err := c.start(); err != nil {
		end()
		return nil, err
	}
	go c.reap(end)
	return c, nil
}

// Spawn starts a program that runs for long beside the containers, such as a
// logger: it is owned, but does not hold up the reaping of orphans, so what
// it leaves behind is an orphan at once.
func Spawn(cmd *exec.Cmd) (*Command, error) {
	end := Launching()
	defer end()
	c := &Command{cmd: cmd}
	if err := c.start(); err != nil {
		return nil, err
	}
	go c.reap(func() {})
	return c, nil
}

func (c *Command) start() error {
	pidfd := -1
	if c.cmd.SysProcAttr == nil {
		c.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.cmd.SysProcAttr.PidFD = &pidfd
	if c.cmd.WaitDelay == 0 {
		c.cmd.WaitDelay = outputGrace
	}
	c.done = make(chan struct{})
	if err := c.cmd.Start(); err != nil {
		return err
	}
	family.own(c.cmd.Process.Pid)
	if pidfd >= 0 {
		unix.SetNonblock(pidfd, true)
		c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	return nil
}

// reap waits on the netpoller until the process has ended, and then for its
// output, which is bounded by WaitDelay. It ends with the process. On a kernel
// without pidfds it blocks a thread instead.
func (c *Command) reap(end func()) {
	if c.pidfd != nil {
		awaitEnd(c.pidfd, func(uintptr) bool { return true })
		c.mu.Lock()
		c.ending = true
		c.mu.Unlock()
	}
	c.cmd.Wait() // the state tells what its error would
	family.disown(c.cmd.Process.Pid)
	end()
	close(c.done)
	if c.pidfd != nil {
		c.pidfd.Close()
	}
}

// Wait returns when the program has ended and was reaped, or with ctx's error
// when that comes first. Any number may wait.
func (c *Command) Wait(ctx context.Context) (*os.ProcessState, error) {
	select {
	case <-c.done:
		return c.cmd.ProcessState, nil
	default:
	}
	select {
	case <-c.done:
		return c.cmd.ProcessState, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// PID of the program's process.
func (c *Command) PID() int { return c.cmd.Process.Pid }

// Success tells, once Wait has returned a state, whether the program ended
// with status 0.
func (c *Command) Success() bool { return c.cmd.ProcessState != nil && c.cmd.ProcessState.Success() }

// Signal sends a signal to the program's process; os.ErrProcessDone when it
// has ended.
func (c *Command) Signal(signal syscall.Signal) error {
	if c.pidfd == nil {
		return c.cmd.Process.Signal(signal)
	}
	return signalPidfd(c.pidfd, signal)
}

// killGroup is called when the command's context ends, and never once its
// number may be another's.
func (c *Command) killGroup() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return os.ErrProcessDone
	}
	return unix.Kill(-c.cmd.Process.Pid, unix.SIGKILL)
}
