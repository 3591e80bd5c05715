package stdio

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller lets one goroutine wait for either of two descriptors, which a file in
// Go's netpoller cannot: it is an epoll instance that is in the netpoller
// itself. It only wakes; what is ready, is for poll(2) to tell.
type poller struct {
	file *os.File
	raw  syscall.RawConn
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the netpoller
		unix.Close(fd)
		return nil, fmt.Errorf("epoll instance: %w", err)
	}
	p := &poller{file: os.NewFile(uintptr(fd), "epoll")}
	p.raw, err = p.file.SyscallConn()
	return p, err
}

// add has the events of a descriptor wake the poller. One that is always ready,
// as a file, is none that can be waited for.
func (p *poller) add(fd int, events uint32) error {
	event := unix.EpollEvent{Events: events | unix.EPOLLET&0xffffffff, Fd: int32(fd)}
	var err error
	if e := p.raw.Control(func(own uintptr) { err = unix.EpollCtl(int(own), unix.EPOLL_CTL_ADD, fd, &event) }); e != nil {
		return e
	}
	if err != nil && err != unix.EPERM {
		return fmt.Errorf("wait for a stream: %w", err)
	}
	return nil
}

// wait returns when cond, which is asked whenever something has happened, is
// true, or with os.ErrDeadlineExceeded after until or wake.
func (p *poller) wait(cond func() bool) error {
	return p.raw.Read(func(uintptr) bool { return cond() })
}

func (p *poller) until(t time.Time) { p.file.SetReadDeadline(t) }
