package ttrpcserver

// One connection: how its bytes are read and how it ends. What a frame leads
// to is in dispatch.go, how answers are written in table.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/cleatrun/cleat/oci/ready"
	"golang.org/x/sys/unix"
)

// chunkSize is how much is read at once where no frame is begun: more than
// most requests.
const chunkSize = 4096

// chunks are the buffers for that. A connection has one while it works through
// what it read, and none while it waits.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// What ends the reading of a connection and leaves it as it is: no more requests
// are taken from it, which only ends with a drop; the server is held up; or there
// is nothing to be read.
var (
	errStopped = errors.New("no more requests are taken")
	errHeld    = errors.New("the server is held up")
	errIdle    = errors.New("nothing to be read")
)

// conn is one accepted connection.
type conn struct {
	server *Server
	number uint64
	sock   socket
	ctx    context.Context // ends when the connection is dropped
	cancel context.CancelFunc

	// Owned by the goroutine that reads. When none does, last and in are all
	// there is.
	last  uint32           // the highest stream id that a request has used
	in    inbox            // the frame that has begun
	chunk *[chunkSize]byte // where ahead lies
	ahead []byte           // what was read after in

	// Guarded by server.mu.
	watch   *ready.Watch
	room    chan struct{} // what write waits on, while it does
	dropped bool
	told    bool    // that there may be more to be read, since serve has begun to read
	reading bool    // a goroutine is in serve
	writing bool    // a goroutine is in write
	open    int     // streams in the table
	owed    int     // what the answers in queue cost, see stream.cost
	queue   answers // those that have not left
}

// newConn is that of a non-blocking socket, which is the connection's from now on.
func (s *Server) newConn(fd int) *conn {
	c := &conn{server: s, sock: socket{fd: fd}}
	c.in.reset()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// connect takes a connection into the server and begins to read it. When it fails
// the socket is closed.
func (s *Server) connect(fd int) error {
	c := s.newConn(fd)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		c.cancel()
		c.sock.Close()
		return ErrClosed
	}
	s.accepted++
	c.number = s.accepted
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.options.OnConnect()
	c.await()
	return nil
}

// await has the connection served whenever there is something to be read.
func (c *conn) await() {
	watch, err := ready.On(&c.sock, forRequests, c.readable)
	if err != nil {
		c.drop(fmt.Errorf("wait for requests: %w", err))
		return
	}
	s := c.server
	s.mu.Lock()
	if c.dropped {
		s.mu.Unlock()
		watch.Stop()
		return
	}
	c.watch = watch
	s.mu.Unlock()
	c.beginServing()
}

// readable is called when there is something to be read, or room.
func (c *conn) readable() {
	s := c.server
	s.mu.Lock()
	c.told = true
	wake(c.room)
	s.mu.Unlock()
	c.beginServing()
}

// beginServing has the connection served if there is something to be read.
func (c *conn) beginServing() {
	s := c.server
	s.mu.Lock()
	begins := c.told && c.watch != nil && !c.reading && !c.dropped && s.hold < holdAll
	if begins {
		c.begin()
	}
	s.mu.Unlock()
	if begins {
		go c.serve()
	}
}

// begin announces serve. Called with server.mu held.
func (c *conn) begin() {
	c.reading = true
	c.server.ends.Add(1)
}

// serve reads the connection until there is nothing to be read, it ends or is
// stopped. All bytes that were read and are no request yet are in c.in then, and
// unless it has ended the connection stays as it is, to be served again.
func (c *conn) serve() {
	defer c.server.ends.Done()
	err := error(errIdle)
	for errors.Is(err, errIdle) && !c.rests() {
		err = c.receive()
		c.release()
	}
	if errors.Is(err, errIdle) {
		return
	}
	c.server.mu.Lock()
	c.reading = false
	c.server.still.Broadcast()
	c.server.mu.Unlock()
	if !errors.Is(err, errStopped) && !errors.Is(err, errHeld) {
		c.drop(fmt.Errorf("read: %w", err))
	}
}

// rests ends the reading, unless there may be more to be read than there was.
func (c *conn) rests() bool {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.told {
		c.told = false
		return false
	}
	c.reading = false
	s.still.Broadcast()
	return true
}

// receive turns bytes into frames and frames into requests. It begins with
// what is there, and only waits when all that was read has been used.
func (c *conn) receive() error {
	for {
		switch {
		case c.in.complete():
			if !c.dispatch(c.in.frame) {
				return errStopped
			}
			c.in.reset()
		case len(c.ahead) > 0:
			c.ahead = c.ahead[c.in.take(c.ahead):]
		default:
			if !c.server.awaitPayment(c) {
				return errHeld
			}
			if err := c.fill(); err != nil {
				return err
			}
		}
	}
}

// fill reads once: straight into a frame that has begun, else into a chunk. After a
// read that has found less than it could take there may still be the stream's end.
func (c *conn) fill() error {
	into := c.in.missing()
	direct := into != nil
	if !direct {
		if c.chunk == nil {
			c.chunk = chunks.Get().(*[chunkSize]byte)
		}
		into = c.chunk[:]
	}
	n := 0
	var failed error
	if err := c.sock.Control(func(fd uintptr) { n, failed = readNow(fd, into) }); err != nil {
		return err
	}
	switch {
	case failed == unix.EAGAIN:
		return errIdle
	case failed != nil:
		return failed
	case n == 0:
		return io.EOF
	case direct:
		c.in.read(n)
	default:
		c.ahead = into[:n]
	}
	return nil
}

// release gives the chunk back, with what is left in it.
func (c *conn) release() {
	if c.chunk != nil {
		chunks.Put(c.chunk)
		c.chunk, c.ahead = nil, nil
	}
}

// drop ends the connection, once: its requests' contexts end, its socket is
// closed, and answers that have not left are forgotten by whoever writes them.
func (c *conn) drop(why error) {
	s := c.server
	s.mu.Lock()
	if c.dropped {
		s.mu.Unlock()
		return
	}
	c.dropped = true
	watch := c.watch
	wake(c.room)
	delete(s.conns, c)
	s.live -= c.open
	s.settle()
	s.paid.Broadcast()
	s.mu.Unlock()
	c.cancel()
	if watch != nil {
		watch.Stop()
	}
	c.sock.Close()
	if !usual(why) {
		s.options.Log("connection %d: %v", c.number, why)
	}
}

// usual tells how connections end when one of the sides just goes.
func usual(err error) bool {
	return errors.Is(err, ErrDrop) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
