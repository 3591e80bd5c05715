package bootstrap

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/wire"
	"golang.org/x/sys/unix"
)

// Stdout writes to the process's stdout. Unlike os.Stdout it does not end the
// process when the reader is gone: a start that fails has something to undo.
var Stdout io.Writer = output(unix.Stdout)

type output int

func (o output) Write(b []byte) (written int, err error) {
	for written < len(b) {
		n, err := unix.Write(int(o), b[written:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return written, fmt.Errorf("write answer: %w", err)
		}
		written += n
	}
	return written, nil
}

// startAnswer is a containerd.runtime.bootstrap.v1.BootstrapResult for a
// containerd that sent BootstrapParams, and for an older one the address, with
// not a byte behind it. That one takes this for version 2; where a leader does not
// serve it, the answer is in the form that 2.0 to 2.2 have for what they know
// besides (parseStartResponse of core/runtime/v2/shim.go).
func startAnswer(legacy bool, address string, version int) []byte {
	if legacy && version == oldVersion {
		return []byte(address)
	}
	if legacy {
		answer, err := json.Marshal(struct {
			Version  int    `json:"version"`
			Address  string `json:"address"`
			Protocol string `json:"protocol"`
		}{version, address, "ttrpc"})
		if err == nil { // as it always is of such a type
			return answer
		}
	}
	b := appendVarint(nil, 1, uint64(version))
	b = wire.AppendSized(wire.AppendTag(b, 2, wire.BytesKind), address)
	return wire.AppendSized(wire.AppendTag(b, 3, wire.BytesKind), "ttrpc")
}

// DeleteAnswer is a containerd.task.v3.DeleteResponse, what `delete` prints.
func DeleteAnswer(e oci.Exit) []byte {
	b := appendVarint(nil, 1, uint64(uint32(e.Pid)))
	b = appendVarint(b, 2, uint64(uint32(e.Status)))
	return wire.AppendSized(wire.AppendTag(b, 3, wire.BytesKind), timestamp(e.Timestamp))
}

// timestamp is a google.protobuf.Timestamp.
func timestamp(t time.Time) []byte {
	b := appendVarint(nil, 1, uint64(t.Unix()))
	return appendVarint(b, 2, uint64(t.Nanosecond()))
}

// appendVarint appends a field, unless it has proto3's default.
func appendVarint(b []byte, number wire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return wire.AppendVarint(wire.AppendTag(b, number, wire.VarintKind), v)
}
