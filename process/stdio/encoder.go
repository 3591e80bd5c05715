package stdio

// This file makes the records of a log of a stream's bytes: kubelet's CRI format
// (kubernetes/pkg/kubelet/kuberuntime/logs, and what containerd's CRI plugin
// writes, internal/cri/io/logger.go) and that of Docker's json-file driver
// (moby/daemon/logger/jsonfilelog, whose strings are those of its jsonlog).

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// format of a file.
type format string

const (
	raw      format = "raw" // the bytes themselves
	cri      format = "cri"
	jsonFile format = "json"
)

// recordMax is the longest line that is one record: both containerd's and
// Docker's limit. A longer one is several, of which only the last ends it.
const recordMax = 16 << 10

// encoder makes the records of one stream. A line that has not ended is held.
type encoder struct {
	format format
	stream string
	held   []byte
	// began is when the first record of a long line was made, whose time Docker
	// gives to all of them.
	began time.Time
}

// newEncoder returns nil for the bytes themselves.
func newEncoder(f format, stream string) *encoder {
	if f == raw || f == "" {
		return nil
	}
	return &encoder{format: f, stream: stream}
}

// encode returns the records that b completes, read at that time.
func (e *encoder) encode(b []byte, now time.Time) (out []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i >= 0 && len(e.held)+i <= recordMax {
			line := b[:i]
			if len(e.held) > 0 {
				line = append(e.held, line...)
			}
			out = e.append(out, line, true, now)
			e.held, b = e.held[:0], b[i+1:]
			continue
		}
		room := recordMax - len(e.held)
		if i < 0 && len(b) <= room {
			e.held = append(e.held, b...)
			return out
		}
		out = e.append(out, append(e.held, b[:room]...), false, now)
		e.held, b = e.held[:0], b[room:]
	}
	e.held = nil // an idle stream holds no memory
	return out
}

// end returns the record of what is held, a line that never ended.
func (e *encoder) end(now time.Time) []byte {
	if len(e.held) == 0 {
		return nil
	}
	out := e.append(nil, e.held, false, now)
	e.held = nil
	return out
}

// record returns that of a line of the shim's own.
func (e *encoder) record(line []byte, now time.Time) []byte {
	began := e.began
	defer func() { e.began = began }()
	e.began = time.Time{}
	return e.append(nil, bytes.TrimSuffix(line, []byte{'\n'}), true, now)
}

// append appends the record of a line, or of a part of one that is not its end.
func (e *encoder) append(out, line []byte, full bool, now time.Time) []byte {
	if e.format == cri {
		out = now.AppendFormat(out, time.RFC3339Nano)
		out = append(append(append(out, ' '), e.stream...), ' ')
		if full {
			out = append(out, "F "...)
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
		} else {
			out = append(out, "P "...)
		}
		return append(append(out, line...), '\n')
	}
	at := now
	if !e.began.IsZero() {
		at = e.began
	}
	if e.began = at; full {
		e.began = time.Time{}
	}
	out = append(out, `{"log":"`...)
	out = appendString(out, line)
	if full {
		out = append(out, `\n`...)
	}
	out = append(append(out, `","stream":"`...), e.stream...)
	out = at.UTC().AppendFormat(append(out, `","time":"`...), time.RFC3339Nano)
	return append(out, "\"}\n"...)
}

// appendString appends what stands between the quotes of a JSON string, with the
// escapes that Docker uses.
func appendString(out, s []byte) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '\\' || c == '"':
				out = append(out, '\\', c)
			case c == '\n':
				out = append(out, `\n`...)
			case c == '\r':
				out = append(out, `\r`...)
			case c < 0x20 || c == '<' || c == '>' || c == '&':
				out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				out = append(out, c)
			}
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			out = append(out, `\u202`...)
			out = append(out, hex[r&15])
		default:
			out = append(out, s[i:i+size]...)
		}
		i += size
	}
	return out
}
