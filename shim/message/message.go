// Package message has the messages of containerd's Task API, of its events and
// of runc's options that a running shim reads and writes, as plain structs. On
// the wire they are, byte for byte, those of containerd's generated types, from
// which they are generated. Those are not used because the protobuf runtime
// keeps tables for them, in every shim.
//
// Unknown fields are skipped. A message that is nil is one that is not there.
package message

//go:generate go run ./generate

import "time"

// Message is any of them.
type Message interface {
	// Name is the full name of the message's type, as containerd's typeurl
	// package puts it into an Any.
	Name() string
	// Append adds the message's encoding to b. Texts must be UTF-8.
	Append(b []byte) []byte
	// Read adds what an encoded message has to this one. Nothing of b is kept.
	Read(b []byte) error
}

// Pack makes an Any of a message.
func Pack(m Message) *Any { return &Any{TypeUrl: m.Name(), Value: m.Append(nil)} }

// At makes a Timestamp of a time. The zero time is sent as what it is in Go.
func At(t time.Time) *Timestamp {
	return &Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}
