package bootstrap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/cleatrun/cleat/oci/wire"
	"golang.org/x/sys/unix"
)

// JoinKey is the ttrpc metadata key under which a `start` tells the running
// daemon of a group the id of the container that is going to join it. It comes
// with a Task/Connect for that id. A daemon that ends is to close the
// connection without an answer; one that answers is to stay, for a while, until
// the container's Create has come.
const JoinKey = "cleat-join"

const (
	// askLimit bounds how long a leader may take to answer.
	askLimit = 2 * time.Second
	// latestVersion and oldVersion are of containerd's Task API.
	latestVersion = 3
	oldVersion    = 2
	// codeUnimplemented is the gRPC status of a service that is not served.
	codeUnimplemented = 12
)

var (
	// errNobody means that no process listens on the socket.
	errNobody = errors.New("nobody listens")
	// errEnding means that the process there closed the connection: it is
	// about to end.
	errEnding = errors.New("closed without an answer")
)

// askLeader asks the process that listens on the socket which version of the
// Task API it serves, by a Connect of the wanted one: the process can be older
// than this binary, or containerd's own shim, which serves one version alone. A
// process that does not answer in time counts as alive and able.
func askLeader(socket, namespace, id string, wanted int) (version int, err error) {
	deadline := time.Now().Add(askLimit)
	fd, err := connect(socket, askLimit)
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return 0, errNobody
	case errors.Is(err, unix.EAGAIN): // its backlog is full
		return wanted, nil
	case err != nil:
		return 0, fmt.Errorf("connect to the shim of the group: %w", err)
	}
	c := &probe{fd: fd, deadline: deadline}
	defer unix.Close(fd)
	served, err := c.ask(connectRequest(namespace, id, wanted))
	switch {
	case errors.Is(err, unix.EAGAIN):
		return wanted, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return 0, errEnding
	case err != nil:
		return 0, fmt.Errorf("ask the shim of the group for its version: %w", err)
	case served:
		return wanted, nil
	case wanted == oldVersion:
		return latestVersion, nil
	}
	return oldVersion, nil
}

// connect connects to a socket, waiting at most limit for room in its backlog
// (EAGAIN when there is none).
func connect(path string, limit time.Duration) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	wait := unix.NsecToTimeval(limit.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	for err == nil {
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != unix.EINTR {
			break
		}
		err = nil
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}

// A ttrpc frame begins with the length of its data, the stream, the type and
// flags (ttrpc's PROTOCOL.md).
const (
	frameHeader   = 10
	frameRequest  = 1
	frameResponse = 2
	maxFrame      = 4 << 20
)

// connectRequest is a whole ttrpc request, Connect of a version of the Task API.
func connectRequest(namespace, id string, version int) []byte {
	text := func(b []byte, number wire.Number, s string) []byte {
		return wire.AppendSized(wire.AppendTag(b, number, wire.BytesKind), s)
	}
	pair := func(b []byte, key, value string) []byte {
		return text(b, 5, string(text(text(nil, 1, key), 2, value)))
	}
	request := text(nil, 1, "containerd.task.v"+strconv.Itoa(version)+".Task")
	request = text(request, 2, "Connect")
	request = text(request, 3, string(text(nil, 1, id)))
	request = wire.AppendVarint(wire.AppendTag(request, 4, wire.VarintKind), uint64(askLimit.Nanoseconds()))
	request = pair(request, "containerd-namespace-ttrpc", namespace)
	request = pair(request, JoinKey, id)

	frame := make([]byte, frameHeader, frameHeader+len(request))
	binary.BigEndian.PutUint32(frame, uint32(len(request)))
	binary.BigEndian.PutUint32(frame[4:], 1)
	frame[8] = frameRequest
	return append(frame, request...)
}

// probe is a connection that fails with EAGAIN after its deadline.
type probe struct {
	fd       int
	deadline time.Time
}

// ask sends a request and says whether there is such a service.
func (p *probe) ask(request []byte) (served bool, err error) {
	for len(request) > 0 {
		// The connection's own limit for writing, set in connect, is enough.
		n, err := unix.SendmsgN(p.fd, request, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return false, err
		}
		request = request[max(n, 0):]
	}
	header := make([]byte, frameHeader)
	if _, err := io.ReadFull(p, header); err != nil {
		return false, err
	}
	length := binary.BigEndian.Uint32(header)
	if header[8] != frameResponse || length > maxFrame {
		return false, errors.New("the answer is not ttrpc")
	}
	response := make([]byte, length)
	if _, err := io.ReadFull(p, response); err != nil {
		return false, err
	}
	code, err := statusCode(response)
	if err != nil {
		return false, fmt.Errorf("the answer is not ttrpc: %w", err)
	}
	return code != codeUnimplemented, nil
}

// Read is that of io.Reader.
func (p *probe) Read(b []byte) (int, error) {
	for {
		left := time.Until(p.deadline)
		if left <= 0 {
			return 0, unix.EAGAIN
		}
		wait := unix.NsecToTimeval(max(left.Nanoseconds(), int64(time.Millisecond)))
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return 0, err
		}
		n, err := unix.Read(p.fd, b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// statusCode reads the code out of a ttrpc Response, whose first field is a
// google.rpc.Status. None means OK.
func statusCode(response []byte) (code int32, err error) {
	for field, err := range wire.Fields(response) {
		if err != nil {
			return 0, err
		}
		if field.Number != 1 {
			continue
		}
		var status []byte
		field.Bytes(&status)
		for field, err := range wire.Fields(status) {
			if err != nil {
				return 0, err
			}
			if field.Number == 1 {
				field.Int32(&code)
			}
		}
	}
	return code, nil
}
