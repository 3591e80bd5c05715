// Package stream is what the programs of chaos write, and how it is checked. Every
// byte follows from the name of the stream and its place in it, so whatever
// arrives tells where it belongs: the programs and the check agree on it without
// a word.
package stream

import (
	"fmt"
	"strconv"
	"strings"
)

// Line is the length of every line but perhaps the last, with its newline.
const Line = 64

// Fill puts the bytes from place at on into dst. Where the stream goes through a
// terminal, newlines, which that changes, are something else.
func Fill(dst []byte, name string, at int64, terminal bool) {
	var line [Line]byte
	for len(dst) > 0 {
		number := at / Line
		write(&line, name, number, terminal)
		n := copy(dst, line[at%Line:])
		dst, at = dst[n:], at+int64(n)
	}
}

// write makes a line: name, number, and letters that depend on the number.
func write(line *[Line]byte, name string, number int64, terminal bool) {
	head := append(append(line[:0], name...), ' ')
	head = strconv.AppendInt(head, number, 10)
	head = append(head, ' ')
	seed := uint64(number)*0x9E3779B97F4A7C15 + uint64(len(name))
	for i := len(head); i < Line-1; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
		line[i] = 'a' + byte(seed>>59)%26
	}
	line[Line-1] = '\n'
	if terminal {
		line[Line-1] = '.'
	}
}

// Check compares what arrives with what should.
type Check struct {
	Name     string
	Terminal bool

	// At is how many bytes have arrived.
	At int64

	// Wrong tells the first byte that is not what it should be, nil if all are.
	Wrong error

	want []byte
}

// Write takes what has arrived.
func (c *Check) Write(p []byte) (int, error) {
	if c.Wrong == nil {
		if cap(c.want) < len(p) {
			c.want = make([]byte, len(p))
		}
		want := c.want[:len(p)]
		Fill(want, c.Name, c.At, c.Terminal)
		for i := range p {
			if p[i] != want[i] {
				end := min(len(p), i+Line)
				c.Wrong = fmt.Errorf("byte %d of %s is not what was written: %q instead of %q", c.At+int64(i), c.Name, p[i:end], want[i:end])
				break
			}
		}
	}
	c.At += int64(len(p))
	return len(p), nil
}

// Log is what arrived in a file that may have gaps.
type Log struct {
	Bytes   int64 // of the stream
	Lost    int64 // of the stream, up to the last byte that arrived
	Gaps    int   // places where bytes are lost
	Dropped int64 // bytes of which the log itself says that they were dropped
	Wrong   error
}

// Read looks through a log of size bytes of the stream name. Lost pieces may end
// within a line.
func Read(text []byte, name string) Log {
	var log Log
	at := int64(0)
	for len(text) > 0 {
		if told, rest, ok := notice(text); ok {
			log.Dropped += told
			text = rest
			continue
		}
		n := matches(text, name, at)
		if n > 0 {
			log.Bytes += n
			at += n
			text = text[n:]
			continue
		}
		// A gap: where the next whole line says that it belongs.
		to, err := next(text, name, at)
		if err != nil {
			log.Wrong = err
			return log
		}
		log.Gaps++
		log.Lost += to - at
		at = to
	}
	return log
}

// matches counts how many bytes of text are those of the stream from at on.
func matches(text []byte, name string, at int64) int64 {
	var want [Line]byte
	n := int64(0)
	for len(text) > 0 {
		piece := want[:min(Line, len(text))]
		Fill(piece, name, at+n, false)
		same := 0
		for same < len(piece) && piece[same] == text[same] {
			same++
		}
		n += int64(same)
		if same < len(piece) {
			return n
		}
		text = text[same:]
	}
	return n
}

// notice reads a line that says how much output was dropped.
func notice(text []byte) (dropped int64, rest []byte, ok bool) {
	line := string(text[:min(len(text), 128)])
	if !strings.HasPrefix(line, "[cleat: ") {
		return 0, text, false
	}
	line, _, ok = strings.Cut(line, "\n")
	if !ok {
		return 0, text, false
	}
	lines := 0
	if _, err := fmt.Sscanf(line, "[cleat: %d bytes in %d lines of output dropped]", &dropped, &lines); err != nil {
		return 0, text, false
	}
	return dropped, text[len(line)+1:], true
}

// next finds the place from which text goes on after a gap.
func next(text []byte, name string, at int64) (to int64, err error) {
	// What follows a gap may begin in the middle of a line. The line after it
	// tells its number, and so where the middle is.
	for i := 0; i < len(text) && i <= 2*Line; i++ {
		if i > 0 && text[i-1] != '\n' {
			continue
		}
		rest, ok := strings.CutPrefix(string(text[i:min(len(text), i+Line)]), name+" ")
		if !ok {
			continue
		}
		digits, _, ok := strings.Cut(rest, " ")
		number, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		to = number*Line - int64(i)
		if to > at && matches(text, name, to) >= int64(i) {
			return to, nil
		}
	}
	return 0, fmt.Errorf("after byte %d of %s comes what is no part of it: %q", at, name, text[:min(len(text), 2*Line)])
}
