// Package options is what is said about how a container is run: by the name
// under which the shim was run, by an administrator's file, by the protobuf
// messages that containerd hands to `start`, to `-info` and in Create. It puts
// the levels over each other, and makes oci.Options and limits of them.
//
// It is plain data and reads no TOML: that is the package config's, which only
// the short-lived actions run. The messages it reads field by field and not
// through their generated types, because `start` runs before those are
// initialised. The tests compare the two.
package options

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/cleatrun/cleat/oci/wire"
	"github.com/containerd/errdefs"
)

// Full names of the messages that clients send as options.
const (
	// RuncOptions is what clients send to a runtime called io.containerd.runc.v2,
	// and CRI for every runtime when it adds owners for a user namespace.
	RuncOptions = "containerd.runc.v1.Options"
	// RuntimeOptions is what CRI and moby send to every other runtime: TOML, or
	// the path of a file with it. The second name is that of containerd 1.x.
	RuntimeOptions    = "runtimeoptions.v1.Options"
	oldRuntimeOptions = "containerd.runtimeoptions.v1.Options"
)

// Message is a google.protobuf.Any with a client's options, or empty.
type Message struct {
	TypeURL string `json:"type_url,omitempty"`
	Value   []byte `json:"value,omitempty"`
}

// Known tells whether the message is one that holds options for the shim. Of
// one that does not, nothing is taken: a client that configures another
// runtime's must still get a container.
func (m Message) Known() bool {
	switch messageName(m.TypeURL) {
	case RuncOptions, RuntimeOptions, oldRuntimeOptions:
		return true
	}
	return false
}

// Equal tells whether both say the same.
func (m Message) Equal(other Message) bool {
	return m.TypeURL == other.TypeURL && bytes.Equal(m.Value, other.Value)
}

// Runc returns what containerd.runc.v1.Options say; any other message says
// nothing here. One that cannot be read is errdefs.ErrInvalidArgument.
func (m Message) Runc() (Config, error) {
	if messageName(m.TypeURL) != RuncOptions {
		return Config{}, nil
	}
	o, err := parseRunc(m.Value)
	if err != nil {
		return Config{}, fmt.Errorf("read options %s: %w: %w", m.TypeURL, err, errdefs.ErrInvalidArgument)
	}
	return Config{Runc: o}, nil
}

// TOML returns where runtimeoptions.v1.Options have their TOML, the path of a
// file and text that goes over it; both are empty where there is none, as in
// any other message. What type the client gives to it (type_url) is not looked
// at: that the keys are known is what counts.
func (m Message) TOML() (path string, body []byte, err error) {
	switch messageName(m.TypeURL) {
	case RuntimeOptions, oldRuntimeOptions:
	default:
		return "", nil, nil
	}
	// runtimeoptions/v1/api.proto
	for field, err := range wire.Fields(m.Value) {
		if err == nil {
			switch field.Number {
			case 1:
				var unused string
				err = field.Text(&unused)
			case 2:
				err = field.Text(&path)
			case 3:
				field.Bytes(&body)
			}
		}
		if err != nil {
			return "", nil, fmt.Errorf("read options %s: %w: %w", m.TypeURL, err, errdefs.ErrInvalidArgument)
		}
	}
	return path, body, nil
}

// Said is all that was said about a container outside of its spec.
type Said struct {
	// File is what the administrator's file says.
	File Config `json:"file,omitzero"`
	// Message is what Client was read from.
	Message Message `json:"message,omitzero"`
	Client  Config  `json:"client,omitzero"`
}

// Settings that follow for a shim that was run as invokedAs.
func (s Said) Settings(invokedAs string) Settings { return Resolve(invokedAs, s.File, s.Client) }

// messageName is the part of a type URL that names the message; containerd's
// typeurl package writes none of the rest.
func messageName(typeURL string) string {
	return typeURL[strings.LastIndexByte(typeURL, '/')+1:]
}

// parseRunc reads containerd.runc.v1.Options (types/runc/options/oci.proto).
// Fields 12 and 13 are for containerd itself. A field that has proto3's default
// says nothing, so systemd_cgroup cannot be said to be false.
func parseRunc(message []byte) (o Runc, err error) {
	var systemd bool
	for field, err := range wire.Fields(message) {
		if err != nil {
			return o, err
		}
		switch field.Number {
		case 1:
			field.Bool(&o.NoPivotRoot)
		case 2:
			field.Bool(&o.NoNewKeyring)
		case 3:
			err = field.Text(&o.ShimCgroup)
		case 4:
			field.Uint32(&o.IoUid)
		case 5:
			field.Uint32(&o.IoGid)
		case 6:
			err = field.Text(&o.BinaryName.s)
		case 7:
			err = field.Text(&o.Root.s)
		case 9:
			field.Bool(&systemd)
		case 10:
			err = field.Text(&o.CriuImagePath)
		case 11:
			err = field.Text(&o.CriuWorkPath)
		case 12:
			var unused string
			err = field.Text(&unused)
		}
		if err != nil {
			return o, err
		}
	}
	if systemd {
		o.SystemdCgroup = &systemd
	}
	return o, nil
}
