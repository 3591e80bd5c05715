package ttrpcserver

// The bytes: how a frame is put together from what is read, how a request is
// taken apart and how an answer is made. ttrpc's PROTOCOL.md and request.proto
// describe them.

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci/wire"
)

const (
	headerSize = 10
	maxData    = 4 << 20
)

// Types of frames, and the flags that matter to a server of unary methods.
const (
	requestFrame  = 0x1
	responseFrame = 0x2
	dataFrame     = 0x3

	flagRemoteClosed = 0x1
	flagNoData       = 0x4
)

// header is the first ten bytes of a frame.
type header struct {
	length uint32 // of the data
	stream uint32
	kind   byte
	flags  byte
}

func headerOf(frame []byte) header {
	return header{
		length: binary.BigEndian.Uint32(frame),
		stream: binary.BigEndian.Uint32(frame[4:]),
		kind:   frame[8],
		flags:  frame[9],
	}
}

// inbox is the frame that is being read. Of a frame with too much data only
// the header is kept.
type inbox struct {
	frame []byte // as far as it has come; in head until the header is complete
	size  int    // the whole frame's; 0 until the header is complete
	skip  int64  // bytes still to come that are thrown away
	head  [headerSize]byte
}

// reset makes room for the next frame. The last one, unless it had too much
// data, is not used again.
func (in *inbox) reset() { in.frame, in.size, in.skip = in.head[:0], 0, 0 }

func (in *inbox) complete() bool {
	return in.size > 0 && len(in.frame) == in.size && in.skip == 0
}

// take adds bytes to a frame that is not complete. It returns how many of them
// belong to it.
func (in *inbox) take(p []byte) int {
	switch {
	case in.skip > 0:
		n := min(in.skip, int64(len(p)))
		in.skip -= n
		return int(n)
	case in.size > 0:
		n := min(in.size-len(in.frame), len(p))
		in.frame = append(in.frame, p[:n]...)
		return n
	}
	n := min(headerSize-len(in.frame), len(p))
	in.frame = append(in.frame, p[:n]...)
	if len(in.frame) < headerSize {
		return n
	}
	length := headerOf(in.frame).length
	in.size = headerSize
	if length > maxData {
		in.skip = int64(length)
		return n
	}
	in.size += int(length)
	in.frame = append(make([]byte, 0, in.size), in.frame...)
	return n
}

// missing is the part of a begun frame that has not come, to be read into, or
// nil where it is not known or not wanted.
func (in *inbox) missing() []byte {
	if len(in.frame) >= in.size || in.skip > 0 {
		return nil
	}
	return in.frame[len(in.frame):in.size]
}

// read tells that so many bytes have been read into missing.
func (in *inbox) read(n int) { in.frame = in.frame[:len(in.frame)+n] }

// call is a request taken apart. Its names and its payload lie in the
// request's frame.
type call struct {
	service, method []byte
	payload         []byte
	timeout         time.Duration
	metadata        Metadata
}

// decodeCall takes a ttrpc.Request apart.
func decodeCall(data []byte) (c call, err error) {
	for f, err := range wire.Fields(data) {
		if err == nil {
			switch f.Number {
			case 1:
				err = f.TextBytes(&c.service)
			case 2:
				err = f.TextBytes(&c.method)
			case 3:
				f.Bytes(&c.payload)
			case 4:
				f.Int64((*int64)(&c.timeout))
			case 5:
				if f.IsMessage() {
					err = c.addMetadata(f)
				}
			}
		}
		if err != nil {
			return call{}, err
		}
	}
	c.payload = c.payload[:len(c.payload):len(c.payload)]
	return c, nil
}

// addMetadata adds a ttrpc.KeyValue.
func (c *call) addMetadata(field wire.Field) error {
	var data []byte
	field.Bytes(&data)
	var key, value string
	for f, err := range wire.Fields(data) {
		if err == nil {
			switch f.Number {
			case 1:
				err = f.Text(&key)
			case 2:
				err = f.Text(&value)
			}
		}
		if err != nil {
			return err
		}
	}
	if c.metadata == nil {
		c.metadata = Metadata{}
	}
	c.metadata[key] = append(c.metadata[key], value)
	return nil
}

// encodeAnswer makes the whole frame of an answer, a ttrpc.Response. What cannot
// be sent becomes an error that says so.
func encodeAnswer(stream uint32, payload []byte, st *failure) []byte {
	var told []byte
	if st != nil {
		// The words may be those of a program that does not care for UTF-8.
		// A message must be, or it cannot be sent at all.
		told = wire.AppendInt32(nil, 1, int32(st.code))
		told = wire.AppendText(told, 2, strings.ToValidUTF8(st.message, "\uFFFD"))
	}
	const envelope = 2 * (1 + binary.MaxVarintLen64) // of both fields, at most
	frame := make([]byte, headerSize, headerSize+envelope+len(told)+len(payload))
	if st != nil {
		frame = wire.AppendSized(wire.AppendTag(frame, 1, wire.BytesKind), told)
	}
	frame = wire.AppendBytes(frame, 2, payload)
	size := len(frame) - headerSize
	if size > maxData {
		return encodeAnswer(stream, nil, oversized(size))
	}
	binary.BigEndian.PutUint32(frame, uint32(size))
	binary.BigEndian.PutUint32(frame[4:], stream)
	frame[8] = responseFrame
	return frame
}

// oversized is the status of a frame with too much data, in either direction.
func oversized(length int) *failure {
	return refusal(codeResourceExhausted, "message length %v exceed maximum message size of %v", length, maxData)
}
