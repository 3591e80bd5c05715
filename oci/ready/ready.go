// Package ready tells when files have become ready, all of them on one goroutine.
//
// Go's way, a goroutine for each file that is waited for, costs a stack of 4 KiB
// and more for as long as it waits. What a shim waits for, the ends of processes,
// OOM kills and requests, it waits for during the whole life of its containers.
// Here a file that is waited for costs what the kernel and a map keep of it.
package ready

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch is a file that is waited for.
type Watch struct {
	file syscall.Conn
	key  uint64
	told func()
}

// On calls told whenever the file has become ready for events (EPOLLIN,
// EPOLLPRI, ... of epoll_ctl(2)), and once at the beginning if it is: that is,
// edge-triggered. All are told by one goroutine, one after the other, so told
// must not block. Who is told looks for himself what there is: it may be nothing.
//
// The caller owns the file, and stops the watch before he closes it.
func On(file syscall.Conn, events uint32, told func()) (*Watch, error) {
	return all.add(file, events, told)
}

// Change makes it a watch for other events, and has them told if they are there. Of
// one that is stopped it is an error.
func (w *Watch) Change(events uint32) error { return all.change(w, events) }

// Stop ends the watch. A call of told may be under way, or begin while Stop
// returns, but not later: it must not be waited for with a lock that told takes.
func (w *Watch) Stop() { all.remove(w) }

// all is the process's own, as its goroutine is.
var all watches

type watches struct {
	mu    sync.Mutex // guards what follows
	epoll *os.File   // made when it is first needed
	last  uint64     // key
	keys  map[uint64]*Watch
}

func (a *watches) add(file syscall.Conn, events uint32, told func()) (*Watch, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.open(); err != nil {
		return nil, err
	}
	a.last++
	w := &Watch{file: file, key: a.last, told: told}
	a.keys[w.key] = w
	if err := a.control(unix.EPOLL_CTL_ADD, w, events|unix.EPOLLET); err != nil {
		delete(a.keys, w.key)
		return nil, err
	}
	return w, nil
}

func (a *watches) change(w *Watch, events uint32) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys[w.key] != w {
		return os.ErrClosed
	}
	return a.control(unix.EPOLL_CTL_MOD, w, events|unix.EPOLLET)
}

func (a *watches) remove(w *Watch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys[w.key] != w {
		return
	}
	delete(a.keys, w.key)
	// It fails for a file that is closed. One that has a duplicate may be reported
	// ever after; it has no key.
	_ = a.control(unix.EPOLL_CTL_DEL, w, 0)
}

// open makes the epoll descriptor, which Go's netpoller waits for, and the
// goroutine. a.mu is held.
func (a *watches) open() error {
	if a.epoll != nil {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	unix.SetNonblock(fd, true) // for os.NewFile to give it to the netpoller
	a.epoll = os.NewFile(uintptr(fd), "epoll")
	raw, err := a.epoll.SyscallConn()
	if err == nil {
		err = a.epoll.SetReadDeadline(time.Time{}) // fails where the netpoller has not taken it
	}
	if err != nil {
		a.epoll.Close()
		a.epoll = nil
		return fmt.Errorf("wait for an epoll descriptor: %w", err)
	}
	a.keys = make(map[uint64]*Watch)
	go a.run(raw)
	return nil
}

// run lives as long as the process.
func (a *watches) run(epoll syscall.RawConn) {
	var events [16]unix.EpollEvent
	for {
		n := 0
		if err := epoll.Read(func(fd uintptr) bool {
			n = take(fd, events[:])
			return n > 0
		}); err != nil {
			return // it is never closed
		}
		for _, event := range events[:n] {
			a.mu.Lock()
			w := a.keys[keyOf(event)]
			a.mu.Unlock()
			if w != nil {
				w.told()
			}
		}
	}
}

// take is epoll_pwait(2) that does not wait. Go's scheduler is not told of the call:
// it would wake its monitor thread for it, if that is at rest, which costs more than
// what it is about as a rule.
func take(epfd uintptr, events []unix.EpollEvent) int {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epfd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// control is epoll_ctl(2). a.mu is held.
func (a *watches) control(op int, w *Watch, events uint32) error {
	epoll, err := a.epoll.SyscallConn()
	if err != nil {
		return err
	}
	file, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	event := eventFor(w.key, events)
	var failed error
	err = epoll.Control(func(epfd uintptr) {
		err := file.Control(func(fd uintptr) {
			failed = os.NewSyscallError("epoll_ctl", unix.EpollCtl(int(epfd), op, int(fd), &event))
		})
		failed = errors.Join(err, failed)
	})
	return errors.Join(err, failed)
}

// The kernel keeps 64 bits for us, which Go's struct shows as two halves.

func eventFor(key uint64, events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
}

func keyOf(event unix.EpollEvent) uint64 {
	return uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
}
