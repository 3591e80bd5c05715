// Package options turns what clients say about a container's OCI runtime into
// oci.Options: the protobuf messages that containerd hands to `start`, to
// `-info` and in Create, and the name under which the shim was run.
//
// It reads the messages field by field and not through their generated types,
// because `start` runs before those are initialised. The tests compare the two.
package options

import (
	"fmt"
	"strings"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/bootstrap/wire"
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

// Known tells whether typeURL names a message that holds options for the shim.
func Known(typeURL string) bool {
	switch messageName(typeURL) {
	case RuncOptions, RuntimeOptions, oldRuntimeOptions:
		return true
	}
	return false
}

// Resolve returns the options that a google.protobuf.Any of typeURL and value
// holds, with the defaults that invokedAs, the shim's argv[0], stands for.
// BinaryName is never empty in the result.
//
// An empty Any, and one of a type that is not known, give the defaults: a
// client that configures another runtime's options must still get a
// container. A known message that cannot be read is errdefs.ErrInvalidArgument.
func Resolve(invokedAs, typeURL string, value []byte) (oci.Options, error) {
	var o oci.Options
	if messageName(typeURL) == RuncOptions {
		var err error
		if o, err = parseRunc(value); err != nil {
			return oci.Options{}, fmt.Errorf("read options %s: %w: %w", typeURL, err, errdefs.ErrInvalidArgument)
		}
	}
	if o.BinaryName == "" {
		o.BinaryName = defaultBinary(invokedAs)
	}
	return o, nil
}

// messageName is the part of a type URL that names the message; containerd's
// typeurl package writes none of the rest.
func messageName(typeURL string) string {
	return typeURL[strings.LastIndexByte(typeURL, '/')+1:]
}

// parseRunc reads containerd.runc.v1.Options (types/runc/options/oci.proto).
// Fields 12 and 13 are for containerd itself.
func parseRunc(message []byte) (o oci.Options, err error) {
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
			field.Uint32(&o.IOUID)
		case 5:
			field.Uint32(&o.IOGID)
		case 6:
			err = field.Text(&o.BinaryName)
		case 7:
			err = field.Text(&o.Root)
		case 9:
			field.Bool(&o.SystemdCgroup)
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
	return o, nil
}
