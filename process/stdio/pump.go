package stdio

// This file passes bytes on where the process cannot be given the client's own
// descriptor. A pump is one goroutine that owns both of its ends, waits on the
// netpoller and holds no bytes while it waits.

import (
	"errors"
	"os"
	"sync"
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
	stopping       // pass on what is there without waiting, then end
)

// pump passes what comes out of src on to dst until src is at its end or stop
// is called, and closes both then, so that whoever reads dst sees the end.
//
// Its goroutine is started by start and ends by itself at the end of src, by
// stop at the latest.
type pump struct {
	name     string
	src, dst *end
	pass     func(*pump) error // one step; errEnd at the end of src
	last     func(*pump)       // what is done for stop: a bounded pass that waits for nothing
	log      func(string, ...any)
	// hungUp, which may be nil, tells that writers to src are cut off.
	hungUp func() bool

	stage  atomic.Int32
	failed sync.Once // the first failure of dst is logged, not each
	done   chan struct{}

	// atEnd is called in the pump's goroutine before done is closed.
	atEnd func()
}

// end is one end of a pump. A file that is not in the netpoller is always
// ready, as regular files are.
type end struct {
	file *os.File
	raw  syscall.RawConn
	fd   int
	keep bool // the file belongs to somebody else
}

var errEnd = errors.New("the source is at its end")

func newPump(name string, src, dst *end, log func(string, ...any)) *pump {
	return &pump{name: name, src: src, dst: dst, log: log, done: make(chan struct{})}
}

// newSplicer passes bytes from pipe to pipe, or from pipe to file, inside the
// kernel: none comes into this process. dst may be any file that splice(2)
// writes to.
func newSplicer(name string, src, dst *end, log func(string, ...any)) *pump {
	p := newPump(name, src, dst, log)
	p.pass, p.last = (*pump).splice, (*pump).spliceRest
	return p
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

// start begins to pass bytes on.
func (p *pump) start() { go p.run() }

func (p *pump) run() {
	defer close(p.done)
	defer func() {
		// The write end first: while the read end is open nothing of a pipe
		// is thrown away.
		p.dst.close()
		p.src.close()
		if p.atEnd != nil {
			p.atEnd()
		}
	}()
	for p.at() < stopping {
		err := p.pass(p)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Somebody moved the stage on. The deadline is cleared before
			// the stage is read again, so that a second call is not missed.
			p.src.file.SetReadDeadline(time.Time{})
		default:
			if !errors.Is(err, errEnd) {
				p.log("%s: %v", p.name, err)
			}
			return
		}
	}
	p.last(p)
}

func (p *pump) at() stage { return stage(p.stage.Load()) }

// advance moves the stage on and wakes the goroutine.
func (p *pump) advance(to stage) {
	for {
		now := p.stage.Load()
		if now >= int32(to) {
			return
		}
		if p.stage.CompareAndSwap(now, int32(to)) {
			break
		}
	}
	past := time.Unix(1, 0)
	p.src.file.SetReadDeadline(past)
	if to == stopping {
		p.dst.file.SetWriteDeadline(past)
	}
}

// stop ends the pump and waits for it; what can be passed on without waiting
// is passed on. The pump must have been started.
func (p *pump) stop() {
	p.advance(stopping)
	<-p.done
}

// sourceGone tells that nobody can write to the source any more: what is left
// in it is all that will ever be passed on.
func (p *pump) sourceGone() bool {
	if p.hungUp != nil && p.hungUp() {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(p.src.fd), Events: unix.POLLIN}}
	return poll(fds) && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// abandon closes the ends of a pump that was never started.
func (p *pump) abandon() {
	p.dst.close()
	p.src.close()
}

// unread takes what is in src of a pump that was never started, and returns the
// end of it.
func (p *pump) unread(limit int) string {
	var said []byte
	buf := make([]byte, 4<<10)
	for {
		n, err := unix.Read(p.src.fd, buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return string(said)
		}
		said = append(said, buf[:n]...)
		said = said[max(0, len(said)-limit):]
	}
}

// splice moves what is in src to dst, waiting for either as needed.
//
// A splice between pipes does not tell which of the two it would have to wait
// for, so src is asked: if there is something to read, dst is full. All of it
// happens inside the RawConn callbacks, because the netpoller is edge-triggered
// and forgets what happened before the callback began.
func (p *pump) splice() error {
	var n int64
	var err error
	full := false
	if werr := p.src.raw.Read(func(src uintptr) bool {
		n, err = spliceOnce(int(src), p.dst.fd, spliceMax)
		full = err == unix.EAGAIN && ready(int(src), unix.POLLIN)
		return err != unix.EAGAIN || full
	}); werr != nil {
		return werr
	}
	if full {
		if werr := p.dst.raw.Write(func(dst uintptr) bool {
			n, err = spliceOnce(p.src.fd, int(dst), spliceMax)
			return err != unix.EAGAIN || !ready(p.src.fd, unix.POLLIN)
		}); werr != nil {
			return werr
		}
	}
	switch {
	case err == unix.EAGAIN, err == nil && n > 0:
		return nil
	case err == nil:
		return errEnd
	case err == unix.EPIPE && p.nothingLeft():
		return errEnd // the client of closed streams is gone, and has missed nothing
	}
	return err
}

// nothingLeft tells whether src is empty.
func (p *pump) nothingLeft() bool {
	n, err := unix.IoctlGetInt(p.src.fd, unix.TIOCINQ) // FIONREAD
	return err == nil && n == 0
}

// spliceRest passes on what is in src now. What comes after is not waited for:
// a process that never stops writing would otherwise keep the pump for ever.
func (p *pump) spliceRest() {
	rest, err := unix.IoctlGetInt(p.src.fd, unix.TIOCINQ) // FIONREAD
	for err == nil && rest > 0 {
		var n int64
		n, err = spliceOnce(p.src.fd, p.dst.fd, rest)
		if n <= 0 {
			return
		}
		rest -= int(n)
	}
}

// spliceMax is what one splice is asked for; a pipe seldom holds more.
const spliceMax = 1 << 20

func spliceOnce(src, dst, max int) (int64, error) {
	for {
		n, err := unix.Splice(src, nil, dst, nil, max, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// ready asks without waiting whether a read or write on fd would not wait.
func ready(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	return poll(fds) && fds[0].Revents != 0
}

func poll(fds []unix.PollFd) bool {
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}
