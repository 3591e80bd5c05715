package ttrpcserver

// The bytes: how a frame is put together from what is read, how a request is
// taken apart and how an answer is made. ttrpc's PROTOCOL.md and request.proto
// describe them.

import (
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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
	metadata        ttrpc.MD
}

// decodeCall takes a ttrpc.Request apart. The way that every client's requests
// go leaves the payload where it is. A message that is unusual in any way is
// left to the protobuf library, which so has the last word on what is valid
// and what an invalid one's error says.
func decodeCall(data []byte) (call, error) {
	if c, ok := decodePlainCall(data); ok {
		return c, nil
	}
	var r ttrpc.Request
	if err := proto.Unmarshal(data, &r); err != nil {
		return call{}, err
	}
	c := call{
		service: []byte(r.Service),
		method:  []byte(r.Method),
		payload: r.Payload,
		timeout: time.Duration(r.TimeoutNano),
	}
	for _, kv := range r.Metadata {
		c.addMetadata(kv.Key, kv.Value)
	}
	return c, nil
}

func (c *call) addMetadata(key, value string) {
	if c.metadata == nil {
		c.metadata = ttrpc.MD{}
	}
	c.metadata[key] = append(c.metadata[key], value)
}

// decodePlainCall takes a request apart that is valid and has no unknown
// fields.
func decodePlainCall(data []byte) (c call, ok bool) {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return c, false
		}
		data = data[n:]
		if number == 4 && kind == protowire.VarintType {
			v, n := protowire.ConsumeVarint(data)
			if n < 0 {
				return c, false
			}
			c.timeout = time.Duration(v)
			data = data[n:]
			continue
		}
		if kind != protowire.BytesType {
			return c, false
		}
		field, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return c, false
		}
		data = data[n:]
		switch number {
		case 1, 2:
			if !utf8.Valid(field) {
				return c, false
			}
			if number == 1 {
				c.service = field
			} else {
				c.method = field
			}
		case 3:
			c.payload = field[:len(field):len(field)]
		case 5:
			key, value, ok := decodeKeyValue(field)
			if !ok {
				return c, false
			}
			c.addMetadata(key, value)
		default:
			return c, false
		}
	}
	return c, true
}

// decodeKeyValue takes a ttrpc.KeyValue apart that is valid and has no unknown
// fields.
func decodeKeyValue(data []byte) (key, value string, ok bool) {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 || kind != protowire.BytesType {
			return "", "", false
		}
		data = data[n:]
		field, n := protowire.ConsumeBytes(data)
		if n < 0 || !utf8.Valid(field) {
			return "", "", false
		}
		data = data[n:]
		switch number {
		case 1:
			key = string(field)
		case 2:
			value = string(field)
		default:
			return "", "", false
		}
	}
	return key, value, true
}

// encodeAnswer makes the whole frame of an answer. What cannot be sent becomes
// an error that says so.
func encodeAnswer(stream uint32, payload []byte, st *status.Status) []byte {
	r := &ttrpc.Response{Status: st.Proto(), Payload: payload}
	if r.Status != nil {
		// The words may be those of a program that does not care for UTF-8.
		// A message must be, or it cannot be sent at all.
		r.Status.Message = strings.ToValidUTF8(r.Status.Message, "\uFFFD")
	}
	frame, err := encodeResponse(stream, r)
	if err == nil {
		return frame
	}
	refusal, ok := status.FromError(err)
	if !ok {
		refusal = status.Newf(codes.Internal, "encode the answer: %v", err)
	}
	frame, _ = encodeResponse(stream, &ttrpc.Response{Status: refusal.Proto()})
	return frame
}

// encodeResponse makes a frame of a response, in one piece of memory.
func encodeResponse(stream uint32, r *ttrpc.Response) ([]byte, error) {
	size := proto.Size(r)
	if size > maxData {
		return nil, oversized(size).Err()
	}
	frame, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, headerSize, headerSize+size), r)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-headerSize))
	binary.BigEndian.PutUint32(frame[4:], stream)
	frame[8] = responseFrame
	frame[9] = 0
	return frame, nil
}

// oversized is the status of a frame with too much data, in either direction.
func oversized(length int) *status.Status {
	return status.Newf(codes.ResourceExhausted, "message length %v exceed maximum message size of %v", length, maxData)
}
