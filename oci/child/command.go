package child

import (
	"context"
	"errors"
	"fmt"
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
	end   func() // of the launch
	// restored tells that another program of this process has started it.
	restored bool

	mu     sync.Mutex
	ending bool          // it has ended; what follows gives its number back
	parked chan struct{} // closed when Interrupt has ended reap
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
	c.end = end
	go c.reap()
	return c, nil
}

// Spawn starts a program that runs for long beside the containers, such as a
// logger: it is owned, but does not hold up the reaping of orphans, so what
// it leaves behind is an orphan at once.
func Spawn(cmd *exec.Cmd) (*Command, error) {
	end := Launching()
	defer end()
	c := &Command{cmd: cmd, end: func() {}}
	if err := c.start(); err != nil {
		return nil, err
	}
	go c.reap()
	return c, nil
}

// RestoreCommand makes the caller the owner of a program that the program before
// this one has spawned: pid and what Pidfd was there. It is not waited for before
// Continue.
func RestoreCommand(pid int, pidfd *os.File) *Command {
	family.own(pid)
	c := &Command{cmd: &exec.Cmd{Process: &os.Process{Pid: pid}}, pidfd: pidfd, done: make(chan struct{}), end: func() {}, restored: true}
	c.parked = make(chan struct{})
	close(c.parked)
	return c
}

// Pidfd for a list of files to be handed over; it stays the Command's.
func (c *Command) Pidfd() *os.File { return c.pidfd }

// Interrupt keeps the command from being reaped before Continue, unless it has
// been. It tells which.
func (c *Command) Interrupt() (ended bool) {
	if c.pidfd == nil {
		<-c.done // a thread waits for it, and cannot be stopped
		return true
	}
	c.mu.Lock()
	if c.parked == nil {
		c.parked = make(chan struct{})
	}
	parked := c.parked
	c.mu.Unlock()
	c.pidfd.SetReadDeadline(time.Unix(1, 0))
	select {
	case <-parked:
		return false
	case <-c.done:
		return true
	}
}

// Continue undoes Interrupt.
func (c *Command) Continue() {
	select {
	case <-c.done:
		return
	default:
	}
	c.pidfd.SetReadDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked != nil {
		c.parked = nil
		go c.reap()
	}
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
func (c *Command) reap() {
	if c.pidfd != nil {
		err := awaitEnd(c.pidfd)
		c.mu.Lock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			close(c.parked)
			c.mu.Unlock()
			return
		}
		c.ending = true
		c.mu.Unlock()
	}
	if c.restored {
		if p, err := os.FindProcess(c.cmd.Process.Pid); err == nil {
			c.cmd.ProcessState, _ = p.Wait()
		}
	} else {
		c.cmd.Wait() // the state tells what its error would
	}
	family.disown(c.cmd.Process.Pid)
	c.end()
	close(c.done)
	if c.pidfd != nil {
		c.pidfd.Close()
	}
}

// awaitEnd waits on the netpoller until the process behind a pidfd has ended.
func awaitEnd(pidfd *os.File) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(readable)
}

// Wait returns when the program has ended and was reaped, or with ctx's error
// when that comes first. Any number may wait.
func (c *Command) Wait(ctx context.Context) (*os.ProcessState, error) {
	select {
	case <-c.done:
		return c.state()
	default:
	}
	select {
	case <-c.done:
		return c.state()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Command) state() (*os.ProcessState, error) {
	if c.cmd.ProcessState == nil {
		return nil, fmt.Errorf("how process %d has ended is not known", c.PID())
	}
	return c.cmd.ProcessState, nil
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
