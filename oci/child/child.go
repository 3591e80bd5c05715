// Package child owns the child processes of the shim: each has one owner that
// reaps exactly it, through a pidfd, without a thread that waits.
//
// Kernel facts, decided here once: pidfd_open(2) came with Linux 5.3,
// waitid(P_PIDFD) with 5.4, and a pidfd becomes readable when its process has
// ended, which is what is waited for: of children that live for as long as a
// container does by package ready, of commands by the netpoller.
package child

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cleatrun/cleat/oci/ready"
	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	// Status is the exit code, or 128 plus the number of the signal.
	Status int
	// Signal that ended the process, or 0.
	Signal syscall.Signal
	// At is when it was reaped.
	At time.Time
}

// Child is a process of which this shim is the parent or, as child subreaper,
// the foster parent.
type Child struct {
	PID   int
	pidfd *os.File

	mu    sync.Mutex // guards what follows
	let   bool       // the number has been let go of
	then  func(Exit, error)
	watch *ready.Watch
}

// Adopt makes the caller the owner of pid, a child that something else
// launched and left to us. It must be called before the launch it came from
// is ended (see Launching): until then nobody else reaps it, so the number
// cannot have been given to another process. The owner calls Await at once.
//
// A process that is no descendant of the shim is refused with ECHILD: it is
// none of the launch's, and must not be waited for or signalled. One that the
// launch has kept for its own child is taken: its end can be seen, though not
// its status.
func Adopt(pid int) (*Child, error) {
	c, err := open(pid)
	if err != nil {
		return nil, err
	}
	if err := c.ours(); err != nil && !descends(pid) {
		c.Close()
		return nil, fmt.Errorf("process %d is none of the shim's: %w", pid, err)
	}
	return c, nil
}

// AdoptLeft is Adopt for the pid that a launch has told which then failed. What
// it names may have been reaped by the launch itself, and the number may be a
// stranger's by now: then the error is ECHILD.
func AdoptLeft(pid int) (*Child, error) {
	c, err := open(pid)
	if err != nil {
		return nil, err
	}
	if err := c.ours(); err != nil {
		c.Close()
		return nil, fmt.Errorf("adopt process %d, which a failed launch has named: %w", pid, err)
	}
	return c, nil
}

// open makes the caller the owner of a number, and the process behind it.
func open(pid int) (*Child, error) {
	family.own(pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		family.disown(pid)
		return nil, fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// Not before, or Go's netpoller would have it, too. A program of before package
	// ready, to which the shim may go back, waits for it there.
	unix.SetNonblock(fd, true)
	return &Child{PID: pid, pidfd: pidfd}, nil
}

// maxDepth bounds the way up from a process to the shim.
const maxDepth = 32

// descends tells whether the shim is among the ancestors of a process.
func descends(pid int) bool {
	for range maxDepth {
		parent, err := parentOf(pid)
		if err != nil || parent <= 1 {
			return false
		}
		if parent == os.Getpid() {
			return true
		}
		pid = parent
	}
	return false
}

// ours is ECHILD when the process is not a child of the shim. It asks through
// the pidfd, which stands for one process whatever becomes of the number.
func (c *Child) ours() error {
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	failed := conn.Control(func(fd uintptr) {
		var info unix.Siginfo
		err = unix.EINTR
		for err == unix.EINTR {
			err = unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		}
		if err == unix.EAGAIN { // it runs
			err = nil
		}
	})
	return errors.Join(failed, err)
}

// Await reaps the process as soon as it has ended, and then calls then, on a
// goroutine of its own. It is called by the owner, once, and again after Interrupt
// has taken it back. Of a process that is not a child of the shim (its runtime has
// not left it to us) only the end can be known: then the error is ECHILD.
func (c *Child) Await(then func(Exit, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.then = then
	watch, err := ready.On(c.pidfd, unix.EPOLLIN, func() { c.look() })
	if err != nil {
		// No memory for it in the kernel, or no descriptor. The exit must not be lost.
		go c.poll()
		return
	}
	c.watch = watch
}

// look reaps the process if it has ended. A zombie whose exit somebody else sees
// first (a debugger) is not there yet: the kernel tells again when it is ours.
func (c *Child) look() (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.then == nil {
		return true
	}
	var exit Exit
	ended := false
	conn, err := c.pidfd.SyscallConn()
	if err == nil {
		var failed error
		err = conn.Control(func(fd uintptr) {
			if readable(fd) { // who is no child cannot be asked by reap
				exit, ended, failed = reap(int(fd))
			}
		})
		err = errors.Join(err, failed)
	}
	if err == nil && !ended {
		return false
	}
	if err != nil {
		err = fmt.Errorf("wait for process %d: %w", c.PID, err)
	}
	then := c.then
	c.stop()
	c.letGo()
	go then(exit, err)
	return true
}

// pollGap is how often is looked at a process that nobody tells the end of.
const pollGap = 20 * time.Millisecond

// poll stands in for the watch. It ends with the process, or with Interrupt.
func (c *Child) poll() {
	ticker := time.NewTicker(pollGap)
	defer ticker.Stop()
	for !c.look() {
		<-ticker.C
	}
}

// stop ends the wait; c.mu is held.
func (c *Child) stop() {
	c.then = nil
	if c.watch != nil {
		c.watch.Stop()
		c.watch = nil
	}
}

// readable tells whether a pidfd is, which means that the process has ended.
func readable(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// Ended tells whether the process has ended, whether or not it was reaped.
func (c *Child) Ended() bool {
	ended := true
	conn, err := c.pidfd.SyscallConn()
	if err != nil {
		return ended
	}
	conn.Control(func(fd uintptr) { ended = readable(fd) })
	return ended
}

// Signal sends a signal to exactly this process; os.ErrProcessDone when it
// has ended, whether or not it was reaped.
func (c *Child) Signal(signal syscall.Signal) error { return signalPidfd(c.pidfd, signal) }

func signalPidfd(pidfd *os.File, signal syscall.Signal) error {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return os.ErrProcessDone
	}
	sent := os.ErrProcessDone
	if err := conn.Control(func(fd uintptr) {
		// The kernel takes signals for a zombie, and forgets them.
		if !readable(fd) {
			sent = unix.PidfdSendSignal(int(fd), signal, nil, 0)
		}
	}); err != nil {
		return os.ErrProcessDone
	}
	if errors.Is(sent, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return sent
}

// letGo ends the ownership of the number; c.mu is held.
func (c *Child) letGo() {
	if !c.let {
		c.let = true
		family.disown(c.PID)
	}
}

// Close gives the pidfd back, and takes Await back. A process that has not been
// reaped is nobody's then.
func (c *Child) Close() error {
	c.mu.Lock()
	c.stop()
	c.letGo()
	c.mu.Unlock()
	return c.pidfd.Close()
}

// Pidfd for a list of files to be handed over; it stays the Child's. It is nil
// where there is none.
func (c *Child) Pidfd() *os.File { return c.pidfd }

// Interrupt takes Await back. It is false where that comes too late: the process
// has been reaped, and the function called or about to be.
func (c *Child) Interrupt() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	waits := c.then != nil
	c.stop()
	return waits
}

// Restore makes the caller the owner of a process that the program before this
// one owned: pid and what Pidfd was there. Of one that has been reaped there is
// none, and pidfd is nil.
func Restore(pid int, pidfd *os.File) *Child {
	if pidfd != nil {
		family.own(pid)
	}
	return &Child{PID: pid, pidfd: pidfd, let: pidfd == nil}
}

// reap takes the exit of the process behind a pidfd; done is false while it
// runs.
func reap(pidfd int) (exit Exit, done bool, err error) {
	var info unix.Siginfo
	for {
		err = unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.EAGAIN {
		return Exit{}, false, nil
	}
	if err != nil {
		return Exit{}, true, err
	}
	pid, status := childFields(&info)
	if pid == 0 {
		return Exit{}, false, nil
	}
	exit = Exit{Status: status, At: time.Now()}
	if info.Code != cldExited {
		exit.Signal = syscall.Signal(status)
		exit.Status = 128 + status
	}
	return exit, true, nil
}

// cldExited is CLD_EXITED of sigaction(2): the process called exit, si_status
// is its code; otherwise si_status is a signal.
const cldExited = 1

// childFields reads si_pid and si_status of the kernel's siginfo_t, whose
// union begins at the first pointer-aligned place behind three ints
// (include/uapi/asm-generic/siginfo.h).
func childFields(info *unix.Siginfo) (pid, status int) {
	base := unsafe.Pointer(info)
	union := uintptr(12)
	if align := unsafe.Sizeof(uintptr(0)); union%align != 0 {
		union += align - union%align
	}
	pid = int(*(*int32)(unsafe.Add(base, union)))
	status = int(*(*int32)(unsafe.Add(base, union+8)))
	runtime.KeepAlive(info)
	return pid, status
}
