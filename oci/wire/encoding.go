package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/bits"
)

// This file is protobuf's encoding itself (https://protobuf.dev/programming-guides/encoding),
// as google.golang.org/protobuf/encoding/protowire has it, which the tests compare
// with. That package is not imported: whoever imports it reads from the file of its
// own program before anything else is done, which took `start`, the daemon and
// `delete` 0.15 ms each.

// Number is the number of a field.
type Number = int32

// maxNumber is that of a field. In a group that is skipped there may be larger ones.
const maxNumber = 1<<29 - 1

// Kind is how a value is written.
type Kind int8

const (
	VarintKind     Kind = 0
	Fixed64Kind    Kind = 1
	BytesKind      Kind = 2
	startGroupKind Kind = 3
	endGroupKind   Kind = 4
	Fixed32Kind    Kind = 5
)

var (
	errNumber = errors.New("invalid number of a field")
	errLong   = errors.New("an integer is too long")
	errKind   = errors.New("a reserved kind of a value")
	errGroup  = errors.New("a group ends that was not begun")
	errDeep   = errors.New("groups are nested too deep")
)

// maxDepth bounds groups within groups, which nobody sends.
const maxDepth = 10000

// AppendTag adds what comes before a value.
func AppendTag(b []byte, number Number, kind Kind) []byte {
	return AppendVarint(b, uint64(number)<<3|uint64(kind))
}

// AppendVarint adds a number, without a tag. Inlined into all that writes messages
// it would make the program 60 KiB larger.
//
//go:noinline
func AppendVarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func sizeOfVarint(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// AppendSized adds the length of v and v, without a tag.
func AppendSized[T []byte | string](b []byte, v T) []byte {
	return append(AppendVarint(b, uint64(len(v))), v...)
}

// varint reads a number at the beginning of b, and tells its length.
func varint(b []byte) (v uint64, n int, err error) {
	v, n = binary.Uvarint(b)
	switch {
	case n > 0:
		return v, n, nil
	case n == 0 && len(b) < binary.MaxVarintLen64:
		return 0, 0, io.ErrUnexpectedEOF
	}
	return 0, 0, errLong
}

// tag reads what comes before a value.
func tag(b []byte) (number Number, kind Kind, n int, err error) {
	v, n, err := varint(b)
	if err != nil {
		return 0, 0, 0, err
	}
	if v>>3 < 1 || v>>3 > math.MaxInt32 {
		return 0, 0, 0, errNumber
	}
	return Number(v >> 3), Kind(v & 7), n, nil
}

// sized reads a length and as many bytes.
func sized(b []byte) (v []byte, n int, err error) {
	size, n, err := varint(b)
	if err != nil {
		return nil, 0, err
	}
	if size > uint64(len(b)-n) {
		return nil, 0, io.ErrUnexpectedEOF
	}
	end := n + int(size)
	return b[n:end:end], end, nil
}

// length of a value whose kind is not one of those that are read here.
func length(number Number, kind Kind, b []byte, depth int) (n int, err error) {
	switch kind {
	case VarintKind:
		_, n, err = varint(b)
	case Fixed32Kind:
		n = 4
	case Fixed64Kind:
		n = 8
	case BytesKind:
		_, n, err = sized(b)
	case startGroupKind:
		return lengthOfGroup(number, b, depth)
	case endGroupKind:
		return 0, errGroup
	default:
		return 0, errKind
	}
	if err == nil && n > len(b) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func lengthOfGroup(number Number, b []byte, depth int) (n int, err error) {
	if depth > maxDepth {
		return 0, errDeep
	}
	for {
		inner, kind, size, err := tag(b[n:])
		if err != nil {
			return 0, err
		}
		n += size
		if kind == endGroupKind {
			if inner != number {
				return 0, errGroup
			}
			return n, nil
		}
		size, err = length(inner, kind, b[n:], depth+1)
		if err != nil {
			return 0, err
		}
		n += size
	}
}
