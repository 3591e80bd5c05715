package stdio

// This file passes bytes on through a buffer, where splice(2) cannot: to a
// file that is appended to, and to a terminal. The buffer is taken only when
// there is something to read and room to write it.

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// fileChunk is what is read at once for a file.
const fileChunk = 64 << 10

var fileBuffers = buffers(fileChunk)

func buffers(size int) sync.Pool {
	return sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// copier is a pump that reads and writes.
type copier struct {
	*pump
	pending
	pool *sync.Pool
	// passed is told of what was read, ended of the end of src; both may be nil.
	passed func([]byte)
	ended  func()
}

func newCopier(name string, src, dst *end, pool *sync.Pool, log func(string, ...any)) *copier {
	c := &copier{pump: newPump(name, src, dst, log), pool: pool}
	c.pump.pass, c.pump.last = func(*pump) error { return c.step() }, func(*pump) { c.rest() }
	return c
}

// step waits for bytes and for room, and passes a buffer of them on.
func (c *copier) step() error {
	if err := c.flush(c.pump); err != nil {
		return err
	}
	room := false
	if err := c.src.raw.Read(func(src uintptr) bool {
		some, hup, out := pollBoth(int(src), c.dst.fd)
		room = out
		return some || hup
	}); err != nil {
		return err
	}
	if !room {
		return c.dst.raw.Write(func(dst uintptr) bool { return ready(int(dst), unix.POLLOUT) })
	}
	buf := c.pool.Get().(*[]byte)
	defer c.pool.Put(buf)
	n, err := read(c.src.fd, *buf)
	switch {
	case n > 0:
		if c.passed != nil {
			c.passed((*buf)[:n])
		}
		c.write(c.pump, (*buf)[:n])
		return nil
	case err == nil:
		if c.ended != nil {
			c.ended()
		}
		return errEnd
	case err == unix.EAGAIN:
		return nil
	}
	return err
}

// rest passes on what is in src now, as spliceRest does.
func (c *copier) rest() {
	buf := c.pool.Get().(*[]byte)
	defer c.pool.Put(buf)
	rest, err := unix.IoctlGetInt(c.src.fd, unix.TIOCINQ) // FIONREAD
	for err == nil && rest > 0 && c.flushNow(c.pump) {
		var n int
		n, err = read(c.src.fd, (*buf)[:min(rest, len(*buf))])
		if n <= 0 {
			return
		}
		c.write(c.pump, (*buf)[:n])
		rest -= n
	}
}

// pending is what was read but not yet taken by the other side. It is empty
// nearly always: a chunk is read only when there is room for it.
type pending struct{ bytes []byte }

// write passes b on; what the other side does not take now is kept. A sink that
// fails loses what it was given: the process must not stop because of it.
func (k *pending) write(p *pump, b []byte) {
	n, err := write(p.dst.fd, b)
	if err == nil || err == unix.EAGAIN {
		k.set(append([]byte(nil), b[n:]...))
		return
	}
	k.set(nil)
	// EIO: nobody has the terminal open, so nobody would have read it.
	if err != unix.EIO {
		p.failed.Do(func() { p.log("%s: output is lost: %v", p.name, err) })
	}
}

// flush waits until what is kept has been taken.
func (k *pending) flush(p *pump) error {
	for len(k.bytes) > 0 {
		if err := p.dst.raw.Write(func(dst uintptr) bool { return ready(int(dst), unix.POLLOUT) }); err != nil {
			return err
		}
		k.write(p, k.bytes)
	}
	return nil
}

// flushNow tells whether what is kept has been taken, without waiting.
func (k *pending) flushNow(p *pump) bool {
	if len(k.bytes) > 0 {
		k.write(p, k.bytes)
	}
	return len(k.bytes) == 0
}

func (k *pending) set(b []byte) {
	if len(b) == 0 {
		b = nil
	}
	k.bytes = b
}

// pollBoth asks with one call whether there is something to read in src,
// whether src has been hung up, and whether dst takes something.
func pollBoth(src, dst int) (some, hup, room bool) {
	fds := []unix.PollFd{{Fd: int32(src), Events: unix.POLLIN}, {Fd: int32(dst), Events: unix.POLLOUT}}
	if !poll(fds) {
		return false, false, false
	}
	return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0, fds[1].Revents != 0
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
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
