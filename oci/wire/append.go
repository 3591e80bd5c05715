package wire

import (
	"encoding/binary"
	"math"
)

// This file writes fields. Those that have their zero value are left out, as
// proto3 does, but not elements of a list.

// AppendText adds a text, which is to be UTF-8, as all texts are that were read.
func AppendText(b []byte, number Number, v string) []byte {
	if v == "" {
		return b
	}
	return AppendElement(b, number, v)
}

// AppendElement adds a text that is one of a list.
func AppendElement(b []byte, number Number, v string) []byte {
	return AppendSized(AppendTag(b, number, BytesKind), v)
}

// AppendElements adds a list of texts.
func AppendElements(b []byte, number Number, list []string) []byte {
	for _, v := range list {
		b = AppendElement(b, number, v)
	}
	return b
}

// AppendBytes adds bytes.
func AppendBytes(b []byte, number Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return AppendSized(AppendTag(b, number, BytesKind), v)
}

// AppendUint64 adds a number.
func AppendUint64(b []byte, number Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return AppendVarint(AppendTag(b, number, VarintKind), v)
}

// AppendUint32 adds a number.
func AppendUint32(b []byte, number Number, v uint32) []byte {
	return AppendUint64(b, number, uint64(v))
}

// AppendInt64 adds a number.
func AppendInt64(b []byte, number Number, v int64) []byte {
	return AppendUint64(b, number, uint64(v))
}

// AppendInt32 adds a number, or an enum's value. One below zero has ten bytes.
func AppendInt32(b []byte, number Number, v int32) []byte {
	return AppendUint64(b, number, uint64(int64(v)))
}

// AppendBool adds a truth.
func AppendBool(b []byte, number Number, v bool) []byte {
	if !v {
		return b
	}
	return AppendUint64(b, number, 1)
}

// AppendDouble adds a number. It has its zero value with all bits zero only.
func AppendDouble(b []byte, number Number, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	return binary.LittleEndian.AppendUint64(AppendTag(b, number, Fixed64Kind), bits)
}

// AppendUint64s adds a list of numbers, packed as proto3 does.
func AppendUint64s(b []byte, number Number, list []uint64) []byte {
	if len(list) == 0 {
		return b
	}
	size := 0
	for _, v := range list {
		size += sizeOfVarint(v)
	}
	b = AppendVarint(AppendTag(b, number, BytesKind), uint64(size))
	for _, v := range list {
		b = AppendVarint(b, v)
	}
	return b
}

// AppendMessage adds a message, which may be empty.
func AppendMessage(b []byte, number Number, m interface{ Append([]byte) []byte }) []byte {
	b = append(AppendTag(b, number, BytesKind), 0)
	start := len(b)
	b = m.Append(b)
	size := len(b) - start
	// Most messages are short, and have one byte for their length.
	if more := sizeOfVarint(uint64(size)) - 1; more > 0 {
		var space [9]byte
		b = append(b, space[:more]...)
		copy(b[start+more:], b[start:start+size])
	}
	AppendVarint(b[:start-1], uint64(size))
	return b
}

// AppendTexts adds a map, in no order.
func AppendTexts(b []byte, number Number, m map[string]string) []byte {
	for key, value := range m {
		entry := AppendElement(AppendElement(nil, 1, key), 2, value)
		b = AppendSized(AppendTag(b, number, BytesKind), entry)
	}
	return b
}
