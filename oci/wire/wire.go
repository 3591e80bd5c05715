// Package wire reads and writes protobuf messages field by field, for code that
// does without the protobuf runtime. It accepts, refuses and writes what
// google.golang.org/protobuf/proto does.
package wire

import (
	"fmt"
	"iter"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is one field of a message.
type Field struct {
	Number int32
	kind   protowire.Type
	number uint64
	bytes  []byte
}

// Fields yields the fields of message in their order. After an error there
// are no more.
func Fields(message []byte) iter.Seq2[Field, error] {
	return func(yield func(Field, error) bool) {
		for len(message) > 0 {
			f, n := consume(message)
			if n < 0 {
				yield(f, protowire.ParseError(n))
				return
			}
			message = message[n:]
			if !yield(f, nil) {
				return
			}
		}
	}
}

func consume(message []byte) (f Field, n int) {
	number, kind, tag := protowire.ConsumeTag(message)
	if tag < 0 {
		return f, tag
	}
	if number > protowire.MaxValidNumber {
		return f, -1
	}
	f.Number, f.kind = int32(number), kind
	switch kind {
	case protowire.VarintType:
		f.number, n = protowire.ConsumeVarint(message[tag:])
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(message[tag:])
	default:
		n = protowire.ConsumeFieldValue(number, kind, message[tag:])
	}
	if n < 0 {
		return f, n
	}
	return f, tag + n
}

// Bool sets *v to the field's value. As with every method here, a field of
// another kind than asked for is left alone: it is an unknown one.
func (f Field) Bool(v *bool) {
	if f.kind == protowire.VarintType {
		*v = f.number != 0
	}
}

// Uint32 sets *v to the field's value.
func (f Field) Uint32(v *uint32) {
	if f.kind == protowire.VarintType {
		*v = uint32(f.number)
	}
}

// Int32 sets *v to the field's value, also that of an enum.
func (f Field) Int32(v *int32) {
	if f.kind == protowire.VarintType {
		*v = int32(f.number)
	}
}

// Bytes sets *v to the field's bytes, which are part of the message.
func (f Field) Bytes(v *[]byte) {
	if f.kind == protowire.BytesType {
		*v = f.bytes
	}
}

// TextBytes is Bytes of a text, which must be UTF-8.
func (f Field) TextBytes(v *[]byte) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	if !utf8.Valid(f.bytes) {
		return fmt.Errorf("field %d is not UTF-8", f.Number)
	}
	*v = f.bytes
	return nil
}

// Text sets *v to the field's text, which must be UTF-8.
func (f Field) Text(v *string) error {
	var text []byte
	if err := f.TextBytes(&text); err != nil {
		return err
	}
	if text != nil {
		*v = string(text)
	}
	return nil
}

// Int64 sets *v to the field's value.
func (f Field) Int64(v *int64) {
	if f.kind == protowire.VarintType {
		*v = int64(f.number)
	}
}

// Uint64 sets *v to the field's value.
func (f Field) Uint64(v *uint64) {
	if f.kind == protowire.VarintType {
		*v = f.number
	}
}

// Copy sets *v to a copy of the field's bytes.
func (f Field) Copy(v *[]byte) {
	if f.kind == protowire.BytesType {
		*v = append([]byte{}, f.bytes...)
	}
}

// Element adds the field's text to a list.
func (f Field) Element(list *[]string) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	var v string
	if err := f.Text(&v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// Texts adds the field's entry to a map.
func (f Field) Texts(m *map[string]string) error {
	if f.kind != protowire.BytesType {
		return nil
	}
	var key, value string
	for part, err := range Fields(f.bytes) {
		if err == nil {
			switch part.Number {
			case 1:
				err = part.Text(&key)
			case 2:
				err = part.Text(&value)
			}
		}
		if err != nil {
			return err
		}
	}
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
	return nil
}

// IsMessage tells whether the field can be a message.
func (f Field) IsMessage() bool { return f.kind == protowire.BytesType }

// Message reads the field into a message, which may have some of its fields
// already: what comes twice is one.
func (f Field) Message(m interface{ Read([]byte) error }) error { return m.Read(f.bytes) }

// Skip finds out whether a message is one.
func Skip(message []byte) error {
	for _, err := range Fields(message) {
		if err != nil {
			return err
		}
	}
	return nil
}
