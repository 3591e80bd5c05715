package ttrpcserver

// One connection: how its bytes are read and how it ends. What a frame leads
// to is in dispatch.go, how answers are written in table.go.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// chunkSize is how much is read at once where no frame is begun: more than
// most requests.
const chunkSize = 4096

// chunks are the buffers for that. A connection has one while it works through
// what it read, and none while it waits.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// errStopped ends the reading of a connection whose requests are not taken any
// more.
var errStopped = errors.New("no more requests are taken")

// conn is one accepted connection.
type conn struct {
	server *Server
	number uint64
	sock   *net.UnixConn
	raw    syscall.RawConn
	ctx    context.Context // ends when the connection is dropped
	cancel context.CancelFunc

	// Owned by the goroutine that reads. When none does, last and in are all
	// there is.
	last  uint32             // the highest stream id that a request has used
	in    inbox              // the frame that has begun
	chunk *[chunkSize]byte   // where ahead lies
	ahead []byte             // what was read after in
	ready func(uintptr) bool // c.readSocket, bound once
	err   error              // result of readSocket

	// Guarded by server.mu.
	dropped bool
	reading bool    // a goroutine is in serve
	writing bool    // a goroutine is in write
	open    int     // streams in the table
	owed    int     // what the answers in queue cost, see stream.cost
	queue   answers // those that have not left
}

func (s *Server) newConn(sock *net.UnixConn) (*conn, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{server: s, sock: sock, raw: raw}
	c.ready = c.readSocket
	c.in.reset()
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// connect takes a connection into the server and begins to read it.
func (s *Server) connect(sock *net.UnixConn) error {
	c, err := s.newConn(sock)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		c.cancel()
		return ErrClosed
	}
	s.accepted++
	c.number = s.accepted
	s.conns[c] = struct{}{}
	reads := s.hold < holdAll
	if reads {
		c.begin()
	}
	s.mu.Unlock()
	s.options.OnConnect()
	if reads {
		go c.serve()
	}
	return nil
}

// begin announces serve. Called with server.mu held.
func (c *conn) begin() {
	c.reading = true
	c.server.ends.Add(1)
}

// serve reads the connection until it ends or is stopped. It is ended by drop,
// by the peer, or by a deadline on the socket. After a deadline all bytes that
// were read and are no request yet are in c.in, and the connection stays as it
// is: it is for whoever set the deadline to drop it or to serve it again. So
// it is when no more requests are taken, which only ends with a drop.
func (c *conn) serve() {
	defer c.server.ends.Done()
	err := c.receive()
	c.release()
	c.server.mu.Lock()
	c.reading = false
	c.server.still.Broadcast()
	c.server.mu.Unlock()
	if !errors.Is(err, errStopped) && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.drop(fmt.Errorf("read: %w", err))
	}
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
			c.server.awaitPayment(c)
			if err := c.fill(); err != nil {
				return err
			}
		}
	}
}

// fill waits for bytes and reads them: straight into a frame that has begun,
// else into a chunk.
func (c *conn) fill() error {
	if err := c.raw.Read(c.ready); err != nil {
		return err
	}
	return c.err
}

// readSocket reads once and returns false when there is nothing to be read. A
// connection that waits has no chunk: it is taken here, when the socket is
// said to be readable, and given back when it is not.
func (c *conn) readSocket(fd uintptr) bool {
	into := c.in.missing()
	direct := into != nil
	if !direct {
		if c.chunk == nil {
			c.chunk = chunks.Get().(*[chunkSize]byte)
		}
		into = c.chunk[:]
	}
	n, err := unix.Read(int(fd), into)
	for err == unix.EINTR {
		n, err = unix.Read(int(fd), into)
	}
	if err == unix.EAGAIN {
		c.release()
		return false
	}
	c.err = err
	switch {
	case err != nil:
	case n == 0:
		c.err = io.EOF
	case direct:
		c.in.read(n)
	default:
		c.ahead = into[:n]
	}
	return true
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
	delete(s.conns, c)
	s.live -= c.open
	s.settle()
	s.paid.Broadcast()
	s.mu.Unlock()
	c.cancel()
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
