package cgroup

// This file tells about OOM kills as they happen, for the container that goes
// on without one of its processes. What an exit needs to know, OOMSince tells
// without any watch.
//
// V2: memory.events is pollable; a change wakes whoever waits on the open file
// itself, so no inotify instance (of which a user has 128) is spent.
// V1: an eventfd registered with cgroup.event_control. The kernel signals it
// when the group or one above it runs out of memory, before it kills anybody,
// and once more when the group is removed (cgroup-v1/memory.rst, 10. OOM
// Control). So after a signal the counter is looked at a few more times.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// looks are the waits between the looks at the counter that follow a signal on
// V1. The kernel may be busy for seconds with writing its report to a console.
var looks = []time.Duration{
	1 * time.Millisecond, 4 * time.Millisecond, 16 * time.Millisecond, 64 * time.Millisecond,
	256 * time.Millisecond, time.Second, 4 * time.Second,
}

// watch is a live watch. Its goroutine waits on the netpoller and ends when the Group
// is closed.
type watch struct {
	oom    *oomCounter
	notify func()
	event  *os.File // V1: the eventfd; V2: the counter's own file, which it does not own

	mu    sync.Mutex // protects held and the deadline of event
	held  bool
	ended chan struct{} // closed when the goroutine has ended
}

// WatchOOM calls notify when processes of the group were killed for want of
// memory and nobody has asked OOMSince about it: once for a burst of kills,
// when it is over. Kills since Load, or since the Group was described for
// Restore, are told too. Whoever is notified calls OOMSince, which decides
// between him and an exit that happens at the same time.
//
// notify runs on the watch's goroutine: it must not block, and may run once
// more while Close returns. A Group has one watch at most
// (errdefs.ErrAlreadyExists); a group without memory controller cannot be
// watched (errdefs.ErrNotImplemented).
func (g *Group) WatchOOM(notify func()) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return fmt.Errorf("watch OOM kills: closed: %w", errdefs.ErrFailedPrecondition)
	}
	if g.watch != nil {
		return fmt.Errorf("watch OOM kills: %w", errdefs.ErrAlreadyExists)
	}
	g.oom.open(g)
	w, err := newWatch(&g.oom, notify)
	if err != nil {
		return fmt.Errorf("watch OOM kills: %w", err)
	}
	g.watch = w
	w.start()
	return nil
}

func newWatch(c *oomCounter, notify func()) (*watch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil, fmt.Errorf("the group has no memory controller: %w", errdefs.ErrNotImplemented)
	}
	w := &watch{oom: c, notify: notify, event: c.file}
	if c.mode == V1 {
		if c.event == nil { // else it was inherited
			var err error
			if c.event, err = oomEventfd(c); err != nil {
				return nil, err
			}
		}
		w.event = c.event
	}
	if err := w.event.SetReadDeadline(time.Time{}); err != nil {
		w.stop()
		return nil, fmt.Errorf("poll %s: %w", w.event.Name(), err)
	}
	return w, nil
}

// oomEventfd makes a descriptor that is signalled when the V1 group is out of
// memory. The registration ends when it is closed.
func oomEventfd(c *oomCounter) (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	f := os.NewFile(uintptr(fd), "eventfd")
	control := filepath.Join(c.dir, "cgroup.event_control")
	raw, err := c.file.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(counter uintptr) {
			err = writeFile(control, fmt.Sprintf("%d %d", fd, counter))
		})
		err = errors.Join(err, cerr)
	}
	if isGone(err) {
		err = fmt.Errorf("%s: %w: %w", control, err, errdefs.ErrNotFound)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (w *watch) stop() {
	if w.oom.mode == V1 {
		w.event.Close()
	}
}

func (w *watch) start() {
	w.ended = make(chan struct{})
	go w.run(w.ended)
}

// run is the watch's goroutine.
func (w *watch) run(ended chan struct{}) {
	defer close(ended)
	next := len(looks) // into looks
	for {
		now := w.look()
		if now.unreported && now.quiet >= burstGap {
			w.notify()
			now.unreported = false
		}
		var wait time.Duration // 0 is until the next signal
		switch {
		case now.unreported:
			wait = burstGap - now.quiet
		case next < len(looks) && !now.gone:
			wait = looks[next]
			next++
		}
		signalled, err := w.wait(wait)
		if errors.Is(err, errHeld) {
			return
		}
		if err != nil {
			w.stop()
			return
		}
		if signalled && w.oom.mode == V1 {
			next = 0
		}
	}
}

// seen is what a look at the counter shows.
type seen struct {
	unreported bool          // there is a burst that nobody has asked about
	quiet      time.Duration // since its last kill; burstGap or more if it is over
	gone       bool          // the cgroup has been removed: nothing will change any more
}

func (w *watch) look() seen {
	c := w.oom
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.refresh()
	if c.burstReported {
		c.known.Reported = c.known.Kills
	}
	s := seen{unreported: c.known.Kills > c.known.Reported, quiet: time.Since(c.lastGrowth), gone: c.gone}
	if c.gone || time.Since(c.burstStart) >= burstMax {
		s.quiet = max(s.quiet, burstGap)
	}
	return s
}

// wait waits for the kernel to tell something, or for d to pass if it is not 0.
// It fails when the file is closed.
func (w *watch) wait(d time.Duration) (signalled bool, err error) {
	var deadline time.Time
	if d > 0 {
		deadline = time.Now().Add(d)
	}
	if err := w.until(deadline); err != nil {
		return false, err
	}
	if w.oom.mode == V1 {
		signalled, err = w.waitV1()
	} else {
		signalled, err = w.waitV2()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return signalled, err
}

// errHeld ends the goroutine of a watch that goes on later.
var errHeld = errors.New("the watch is held up")

// until sets the end of the next wait.
func (w *watch) until(deadline time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held {
		return errHeld
	}
	return w.event.SetReadDeadline(deadline)
}

// hold ends the goroutine and waits for that.
func (w *watch) hold() {
	w.mu.Lock()
	w.held = true
	w.event.SetReadDeadline(time.Unix(1, 0))
	w.mu.Unlock()
	<-w.ended
}

// goOn undoes hold.
func (w *watch) goOn() {
	w.mu.Lock()
	held := w.held
	w.held = false
	w.mu.Unlock()
	if held {
		w.start()
	}
}

func (w *watch) waitV1() (heard bool, err error) {
	raw, err := w.event.SyscallConn()
	if err != nil {
		return false, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		w.oom.mu.Lock()
		defer w.oom.mu.Unlock()
		heard, failed = w.oom.hear(int(fd))
		return heard || failed != nil
	})
	return heard, errors.Join(err, failed)
}

func (w *watch) waitV2() (signalled bool, err error) {
	raw, err := w.event.SyscallConn()
	if err != nil {
		return false, err
	}
	err = raw.Read(func(fd uintptr) bool {
		w.oom.mu.Lock()
		defer w.oom.mu.Unlock()
		if w.oom.gone {
			return false // for ever: only Close ends the wait
		}
		if signalled = changed(fd); signalled {
			w.oom.sign = time.Now()
		}
		return signalled
	})
	return signalled, err
}

// changed tells whether an event file of V2 has changed since it was last read
// through this descriptor, or is gone (fs/kernfs/file.c, kernfs_generic_poll).
// Readiness alone says nothing: such a file can be read at any time.
func changed(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	for {
		n, err := unix.Poll(poll, 0)
		if err != unix.EINTR {
			return n > 0 && poll[0].Revents&unix.POLLPRI != 0
		}
	}
}
