package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/cleatrun/cleat/oci/wire"
	"github.com/cleatrun/cleat/shim/message"
)

const (
	eventsService = "containerd.services.events.ttrpc.v1.Events"
	// namespaceKey is where containerd's services look for the namespace.
	namespaceKey = "containerd-namespace-ttrpc"

	// A ttrpc frame begins with the length of its data, the stream, the type and
	// flags (ttrpc's PROTOCOL.md).
	frameHeader   = 10
	frameRequest  = 1
	frameResponse = 2
	// maxFrame bounds the data of a frame.
	maxFrame = 4 << 20
)

// connection is one to containerd, made when it is needed. It has one call at a
// time and nothing that waits between them, which is why it is not ttrpc's
// client: that keeps two goroutines and their buffers, and brings the protobuf
// runtime.
type connection struct {
	conn   net.Conn
	stream uint32 // of the next call
}

// open connects to containerd unless that is done.
func (c *connection) open(o Options) (err error) {
	if c.conn == nil {
		c.conn, err = net.Dial("unix", strings.TrimPrefix(o.Address, "unix://"))
		c.stream = 1 // clients' are odd
	}
	return err
}

func (c *connection) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// forward hands one event over an open connection. It has no time limit: the peer
// is on this host, so that its end is the connection's, and to send again what it
// may have taken would make two events of one.
func (c *connection) forward(o Options, e *message.Envelope) error {
	stream := c.stream
	c.stream += 2
	if _, err := c.conn.Write(forwardRequest(stream, o.Namespace, e)); err != nil {
		return closed(err)
	}
	for {
		kind, of, data, err := c.read()
		if err != nil {
			return closed(err)
		}
		if kind == frameResponse && of == stream {
			return answerOf(data)
		}
	}
}

func closed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("containerd closed the connection")
	}
	return err
}

// forwardRequest is the frame of a ttrpc.Request.
func forwardRequest(stream uint32, namespace string, e *message.Envelope) []byte {
	payload := (&message.ForwardRequest{Envelope: e}).Append(nil)
	frame := make([]byte, frameHeader, frameHeader+len(payload)+len(namespace)+128)
	frame = wire.AppendText(frame, 1, eventsService)
	frame = wire.AppendText(frame, 2, "Forward")
	frame = wire.AppendBytes(frame, 3, payload)
	frame = wire.AppendBytes(frame, 5, wire.AppendText(wire.AppendText(nil, 1, namespaceKey), 2, namespace))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	binary.BigEndian.PutUint32(frame[4:], stream)
	frame[8] = frameRequest
	return frame
}

func (c *connection) read() (kind byte, stream uint32, data []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(c.conn, header[:]); err != nil {
		return 0, 0, nil, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length > maxFrame {
		return 0, 0, nil, fmt.Errorf("containerd answers with %d bytes", length)
	}
	data = make([]byte, length)
	_, err = io.ReadFull(c.conn, data)
	return header[8], binary.BigEndian.Uint32(header[4:]), data, err
}

// refusal is what containerd says instead of taking an event. The code is one of
// gRPC's (google/rpc/code.proto); their package would bring gRPC's log with it.
type refusal struct {
	code    uint32
	message string
}

const (
	codeOK              = 0
	codeInvalidArgument = 3
	codeUnimplemented   = 12
)

func (r *refusal) Error() string { return fmt.Sprintf("%s (code %d)", r.message, r.code) }

// refused tells errors by which containerd says that it will never take the
// event. Any other may be over the next time.
func refused(err error) bool {
	var r *refusal
	return errors.As(err, &r) && (r.code == codeInvalidArgument || r.code == codeUnimplemented)
}

// answerOf reads a ttrpc.Response, whose first field is a google.rpc.Status. None
// means that the event is taken.
func answerOf(data []byte) error {
	var status []byte
	if err := firstField(data, &status); err != nil {
		return err
	}
	r := new(refusal)
	for f, err := range wire.Fields(status) {
		if err == nil {
			switch f.Number {
			case 1:
				f.Uint32(&r.code)
			case 2:
				err = f.Text(&r.message)
			}
		}
		if err != nil {
			return fmt.Errorf("the answer is not ttrpc: %w", err)
		}
	}
	if r.code == codeOK {
		return nil
	}
	return r
}

func firstField(data []byte, v *[]byte) error {
	for f, err := range wire.Fields(data) {
		if err != nil {
			return fmt.Errorf("the answer is not ttrpc: %w", err)
		}
		if f.Number == 1 {
			f.Bytes(v)
		}
	}
	return nil
}
