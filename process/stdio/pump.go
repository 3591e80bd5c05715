package stdio

// This file is what all that passes bytes on have in common. A pump is one
// goroutine that owns its ends and waits on the netpoller. It can be frozen
// between two steps: what it is then, is plain data and descriptors.

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stage tells a pump how far the process and its streams have come. It only
// grows.
type stage int32

const (
	flowing  stage = iota
	exited         // the process has been reaped; a hung-up terminal is at its end
	closing        // nobody writes to the source any more, and nobody waits for what fails
	stopping       // pass on what is there without waiting, then end
)

// passer is one way of passing bytes on. Its methods are called by the pump's
// goroutine, but wake, sourceGone and source.
type passer interface {
	// pass does one step, and waits for what it needs for that. It returns errEnd
	// at the end of the source, and os.ErrDeadlineExceeded when it was woken.
	pass() error
	// last passes on what can be had without waiting, and is bounded.
	last()
	// close closes the ends, so that whoever reads sees the end.
	close()
	// wake ends the wait of pass, now or the next one; rearm undoes that.
	wake()
	rearm()
	// sourceGone tells that nobody can write to the source any more: what is left
	// in it is all that will ever be passed on.
	sourceGone() bool
	// source is where the bytes come from.
	source() *end
}

// pump runs a passer until the end of its source or until stop.
type pump struct {
	passer
	name  string
	log   func(string, ...any)
	stage atomic.Int32
	// frozen has the goroutine end between two steps; left is closed when it has.
	frozen atomic.Bool
	left   chan struct{}
	// wakes counts wake, seen is what the goroutine knows of.
	wakes atomic.Int64
	seen  int64

	done chan struct{} // closed when the ends are
	// atEnd is called in the pump's goroutine before done is closed.
	atEnd func()
}

var errEnd = errors.New("the source is at its end")

func newPump(name string, log func(string, ...any)) *pump {
	return &pump{name: name, log: log, done: make(chan struct{})}
}

// start begins to pass bytes on, or goes on after freeze.
func (p *pump) start() {
	p.frozen.Store(false)
	p.left = make(chan struct{})
	go p.run(p.left)
}

// freeze ends the goroutine between two steps. The ends stay open and nothing
// changes until start.
func (p *pump) freeze() {
	p.frozen.Store(true)
	p.wakes.Add(1)
	p.wake()
	<-p.left
}

// run is the goroutine. Source's end ends it, stop at the latest, or freeze.
func (p *pump) run(left chan struct{}) {
	defer close(left)
	for {
		p.seen = p.wakes.Load()
		if p.frozen.Load() {
			return
		}
		if p.at() >= stopping {
			p.last()
			break
		}
		err := p.pass()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// The deadline is cleared before the stage is read again, so that a
			// second wake is not missed.
			p.rearm()
			continue
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errEnd) {
			p.log("%s: %v", p.name, err)
		}
		break
	}
	p.close()
	if p.atEnd != nil {
		p.atEnd()
	}
	close(p.done)
}

// ended tells that the ends are closed.
func (p *pump) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *pump) at() stage { return stage(p.stage.Load()) }

// interrupted tells the goroutine that it was woken since its step began.
func (p *pump) interrupted() bool { return p.wakes.Load() != p.seen }

// advance moves the stage on and wakes the goroutine.
func (p *pump) advance(to stage) {
	if p.ended() {
		return
	}
	for {
		now := p.stage.Load()
		if now >= int32(to) {
			return
		}
		if p.stage.CompareAndSwap(now, int32(to)) {
			break
		}
	}
	p.wakes.Add(1)
	p.wake()
}

// stop ends the pump and waits for it; what can be passed on without waiting
// is passed on. The pump must have been started.
func (p *pump) stop() {
	p.advance(stopping)
	<-p.done
}

// end is one end of a pump. A file that is not in the netpoller is always
// ready, as regular files are.
type end struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	keep bool // the file belongs to somebody else
}

func endOf(f *os.File) *end {
	raw, _ := f.SyscallConn() // fails only for a nil file
	return &end{file: f, raw: raw, fd: int(f.Fd())}
}

// borrowed is an end that the pump must not close.
func borrowed(f *os.File) *end {
	e := endOf(f)
	e.keep = true
	return e
}

func (e *end) close() {
	if !e.keep {
		e.file.Close()
	}
}

// never is no deadline, past one that is over.
var never, past = time.Time{}, time.Unix(1, 0)

// ready asks without waiting whether a read or write on fd would not wait.
func ready(fd int, events int16) bool { return poll(fd, events) != 0 }

// poll asks without waiting which of the events there are for fd; POLLHUP and
// POLLERR always count.
func poll(fd int, events int16) int16 {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0
		}
		return fds[0].Revents
	}
}

// unread is how many bytes are in a pipe.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ) // FIONREAD
	if err != nil {
		return 0
	}
	return n
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// write writes to a descriptor that may be non-blocking and returns how much
// was taken.
func write(fd int, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Write(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
