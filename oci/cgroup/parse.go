package cgroup

// This file parses what cgroup files hold, in place. What is no number there is
// taken as github.com/containerd/cgroups/v3 takes it, whose readers decide in
// containerd's own shim.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

var errFormat = errors.New("not in the format of its kind")

// isSpace tells what separates fields.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// nextLine cuts the first line off. An end of the last line is optional.
func nextLine(text []byte) (line, rest []byte) {
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, nil
}

// nextField cuts the first field off; it is empty when there is none.
func nextField(line []byte) (field, rest []byte) {
	for len(line) > 0 && isSpace(line[0]) {
		line = line[1:]
	}
	for i, c := range line {
		if isSpace(c) {
			return line[:i], line[i:]
		}
	}
	return line, nil
}

// pair has the two fields of a line.
func pair(line []byte) (key, value []byte, ok bool) {
	key, line = nextField(line)
	value, line = nextField(line)
	third, _ := nextField(line)
	return key, value, len(value) > 0 && len(third) == 0
}

// eachPair calls found for each line of a text that has a key and a number in each.
func eachPair(text []byte, found func(key []byte, v uint64)) error {
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		key, value, ok := pair(line)
		if !ok {
			return fmt.Errorf("line %q: %w", line, errFormat)
		}
		v, err := number(value, 64)
		if err != nil {
			return err
		}
		found(key, v)
	}
	return nil
}

// number parses what is a number of so many bits. One below zero is 0.
func number(text []byte, bits int) (uint64, error) {
	if v, ok := digits(text); ok && bits == 64 {
		return v, nil
	}
	v, err := strconv.ParseUint(string(text), 10, bits)
	if err == nil {
		return v, nil
	}
	below, belowErr := strconv.ParseInt(string(text), 10, bits)
	if below < 0 && (belowErr == nil || errors.Is(belowErr, strconv.ErrRange)) {
		return 0, nil
	}
	return 0, err
}

// unsigned parses what must not be below zero.
func unsigned(text []byte) (uint64, error) {
	if v, ok := digits(text); ok {
		return v, nil
	}
	return strconv.ParseUint(string(text), 10, 64)
}

// digits parses a number that is short enough for every one like it to fit.
func digits(text []byte) (v uint64, ok bool) {
	const safe = 19
	if len(text) == 0 || len(text) > safe {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || '9' < c {
			return 0, false
		}
		v = 10*v + uint64(c-'0')
	}
	return v, true
}

// single parses a file that has one number, or "max" for none, which is told as
// unlimited.
func single(text []byte, unlimited uint64) (uint64, error) {
	if len(text) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	const longest = 32
	text = bytes.TrimSpace(text[:min(len(text), longest)])
	if string(text) == "max" {
		return unlimited, nil
	}
	return number(text, 64)
}

// rdma calls found for each device of rdma.current or rdma.max:
//
//	mlx4_0 hca_handle=2 hca_object=max
func rdma(text []byte, found func(device string, handles, objects uint32)) {
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		device, line := nextField(line)
		first, line := nextField(line)
		second, line := nextField(line)
		if fourth, _ := nextField(line); len(second) == 0 || len(fourth) > 0 {
			continue
		}
		var handles, objects uint32
		for _, part := range [...][]byte{first, second} {
			key, value, _ := bytes.Cut(part, []byte("="))
			v, err := uint64(math.MaxUint32), error(nil)
			if string(value) != "max" {
				v, err = number(value, 32)
			}
			switch {
			case err != nil:
			case string(key) == "hca_handle":
				handles = uint32(v)
			case string(key) == "hca_object":
				objects = uint32(v)
			}
		}
		found(validText(device), handles, objects)
	}
}

// validText is a text that a message can have.
func validText(b []byte) string { return string(bytes.ToValidUTF8(b, []byte("?"))) }
