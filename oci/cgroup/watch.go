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

	"github.com/cleatrun/cleat/oci/ready"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// looks are the waits between the looks at the counter that follow a signal on
// V1. The kernel may be busy for seconds with writing its report to a console.
var looks = []time.Duration{
	1 * time.Millisecond, 4 * time.Millisecond, 16 * time.Millisecond, 64 * time.Millisecond,
	256 * time.Millisecond, time.Second, 4 * time.Second,
}

// watch is a live watch. It has a goroutine only while there is something to be
// looked at again: from a signal of the kernel on.
type watch struct {
	oom    *oomCounter
	notify func()
	event  *os.File // V1: the eventfd, which is the counter's; V2: the counter's own file

	mu      sync.Mutex // guards what follows
	ready   *ready.Watch
	held    bool          // until goOn, or for good
	signals chan int      // to the goroutine; nil when there is none
	ended   chan struct{} // closed when the goroutine has ended
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
	if err == nil {
		err = w.start()
	}
	if err != nil {
		return fmt.Errorf("watch OOM kills: %w", err)
	}
	g.watch = w
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

// start has the watch told of signals, and looks at what has come before.
func (w *watch) start() error {
	events := uint32(unix.EPOLLIN)
	if w.oom.mode == V2 {
		events = unix.EPOLLPRI
	}
	told, err := ready.On(w.event, events, w.signalled)
	if err != nil {
		w.stop()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = told
	w.look(len(looks))
	return nil
}

// stop is the end of the watch. Its goroutine may be notifying for the last time.
func (w *watch) stop() {
	w.mu.Lock()
	w.halt()
	w.mu.Unlock()
	if w.oom.mode == V1 {
		w.event.Close()
	}
}

// hold ends the goroutine and waits for that.
func (w *watch) hold() {
	w.mu.Lock()
	ended := w.ended
	w.halt()
	w.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// halt keeps the watch from being told, and its goroutine, if there is one, from
// going on; w.mu is held.
func (w *watch) halt() {
	w.held = true
	if w.ready != nil {
		w.ready.Stop()
		w.ready = nil
	}
	if w.signals != nil {
		close(w.signals)
		w.signals = nil
	}
}

// goOn undoes hold.
func (w *watch) goOn() error {
	w.mu.Lock()
	held := w.held
	w.held = false
	w.mu.Unlock()
	if !held {
		return nil
	}
	return w.start()
}

// signalled is called when the kernel has told something.
func (w *watch) signalled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held || !w.hear() {
		return
	}
	next := len(looks)
	if w.oom.mode == V1 {
		next = 0
	}
	w.look(next)
}

// hear takes in what the kernel has told; it may be nothing.
func (w *watch) hear() (heard bool) {
	raw, err := w.event.SyscallConn()
	if err != nil {
		return false
	}
	c := w.oom
	c.mu.Lock()
	defer c.mu.Unlock()
	raw.Control(func(fd uintptr) {
		if c.mode == V1 {
			heard, _ = c.hear(int(fd))
			return
		}
		if heard = !c.gone && changed(fd); heard {
			c.sign = time.Now()
		}
	})
	return heard
}

// look has the goroutine look, and then go on from there in looks; w.mu is held.
func (w *watch) look(next int) {
	if w.signals == nil {
		w.signals, w.ended = make(chan int, 1), make(chan struct{})
		go w.run(next, w.signals, w.ended)
		return
	}
	select {
	case w.signals <- next:
	default: // it has not begun to look since the last
	}
}

// rest ends the goroutine, unless it is to look again.
func (w *watch) rest(signals <-chan int) (ends bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(signals) > 0 {
		return false
	}
	if (<-chan int)(w.signals) == signals {
		w.signals = nil
	}
	return true
}

// run is the watch's goroutine.
func (w *watch) run(next int, signals <-chan int, ended chan<- struct{}) {
	defer close(ended)
	for {
		now := w.seen()
		if now.unreported && now.quiet >= burstGap {
			w.notify()
			now.unreported = false
		}
		var wait time.Duration
		switch {
		case now.unreported:
			wait = burstGap - now.quiet
		case next < len(looks) && !now.gone:
			wait = looks[next]
			next++
		case w.rest(signals):
			return
		}
		timer := time.NewTimer(wait)
		select {
		case from, goesOn := <-signals:
			if !goesOn {
				timer.Stop()
				return
			}
			next = from
		case <-timer.C:
		}
		timer.Stop()
	}
}

// seen is what a look at the counter shows.
type seen struct {
	unreported bool          // there is a burst that nobody has asked about
	quiet      time.Duration // since its last kill; burstGap or more if it is over
	gone       bool          // the cgroup has been removed: nothing will change any more
}

func (w *watch) seen() seen {
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
