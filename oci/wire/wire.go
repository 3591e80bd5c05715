// Package wire reads and writes protobuf messages field by field, for code that
// does without the protobuf runtime. It accepts, refuses and writes what
// google.golang.org/protobuf/proto does.
package wire

import (
	"fmt"
	"iter"
	"unicode/utf8"
)

// Field is one field of a message.
type Field struct {
	Number Number
	kind   Kind
	number uint64
	bytes  []byte
}

// Fields yields the fields of message in their order. After an error there
// are no more.
func Fields(message []byte) iter.Seq2[Field, error] {
	return func(yield func(Field, error) bool) {
		for len(message) > 0 {
			f, n, err := consume(message)
			if err != nil {
				yield(f, err)
				return
			}
			message = message[n:]
			if !yield(f, nil) {
				return
			}
		}
	}
}

// consume reads the field at the beginning of message, and tells its length.
func consume(message []byte) (f Field, n int, err error) {
	f.Number, f.kind, n, err = tag(message)
	if err == nil && f.Number > maxNumber {
		err = errNumber
	}
	if err != nil {
		return f, 0, err
	}
	var size int
	switch value := message[n:]; f.kind {
	case VarintKind:
		f.number, size, err = varint(value)
	case BytesKind:
		f.bytes, size, err = sized(value)
	default:
		size, err = length(f.Number, f.kind, value, 0)
	}
	return f, n + size, err
}

// Bool sets *v to the field's value. As with every method here, a field of
// another kind than asked for is left alone: it is an unknown one.
func (f Field) Bool(v *bool) {
	if f.kind == VarintKind {
		*v = f.number != 0
	}
}

// Uint32 sets *v to the field's value.
func (f Field) Uint32(v *uint32) {
	if f.kind == VarintKind {
		*v = uint32(f.number)
	}
}

// Int32 sets *v to the field's value, also that of an enum.
func (f Field) Int32(v *int32) {
	if f.kind == VarintKind {
		*v = int32(f.number)
	}
}

// Bytes sets *v to the field's bytes, which are part of the message.
func (f Field) Bytes(v *[]byte) {
	if f.kind == BytesKind {
		*v = f.bytes
	}
}

// TextBytes is Bytes of a text, which must be UTF-8.
func (f Field) TextBytes(v *[]byte) error {
	if f.kind != BytesKind {
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
	if f.kind == VarintKind {
		*v = int64(f.number)
	}
}

// Uint64 sets *v to the field's value.
func (f Field) Uint64(v *uint64) {
	if f.kind == VarintKind {
		*v = f.number
	}
}

// Copy sets *v to a copy of the field's bytes.
func (f Field) Copy(v *[]byte) {
	if f.kind == BytesKind {
		*v = append([]byte{}, f.bytes...)
	}
}

// Element adds the field's text to a list.
func (f Field) Element(list *[]string) error {
	if f.kind != BytesKind {
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
	if f.kind != BytesKind {
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
func (f Field) IsMessage() bool { return f.kind == BytesKind }

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
