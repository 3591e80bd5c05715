package wire

import "google.golang.org/protobuf/encoding/protowire"

// This file writes fields. Those that have their zero value are left out, as
// proto3 does, but not elements of a list.

// AppendText adds a text, which is to be UTF-8, as all texts are that were read.
func AppendText(b []byte, number protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return AppendElement(b, number, v)
}

// AppendElement adds a text that is one of a list.
func AppendElement(b []byte, number protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
}

// AppendBytes adds bytes.
func AppendBytes(b []byte, number protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
}

// AppendUint64 adds a number.
func AppendUint64(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

// AppendUint32 adds a number.
func AppendUint32(b []byte, number protowire.Number, v uint32) []byte {
	return AppendUint64(b, number, uint64(v))
}

// AppendInt64 adds a number.
func AppendInt64(b []byte, number protowire.Number, v int64) []byte {
	return AppendUint64(b, number, uint64(v))
}

// AppendInt32 adds a number, or an enum's value. One below zero has ten bytes.
func AppendInt32(b []byte, number protowire.Number, v int32) []byte {
	return AppendUint64(b, number, uint64(int64(v)))
}

// AppendBool adds a truth.
func AppendBool(b []byte, number protowire.Number, v bool) []byte {
	return AppendUint64(b, number, protowire.EncodeBool(v))
}

// AppendMessage adds a message, which may be empty.
func AppendMessage(b []byte, number protowire.Number, m interface{ Append([]byte) []byte }) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), m.Append(nil))
}

// AppendTexts adds a map, in no order.
func AppendTexts(b []byte, number protowire.Number, m map[string]string) []byte {
	for key, value := range m {
		entry := AppendElement(AppendElement(nil, 1, key), 2, value)
		b = protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), entry)
	}
	return b
}
