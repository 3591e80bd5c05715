package ttrpcserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// code is one of gRPC's (google/rpc/code.proto). Their package would bring
// gRPC's log with it.
type code uint32

const (
	codeCanceled           code = 1
	codeUnknown            code = 2
	codeInvalidArgument    code = 3
	codeDeadlineExceeded   code = 4
	codeNotFound           code = 5
	codeAlreadyExists      code = 6
	codePermissionDenied   code = 7
	codeResourceExhausted  code = 8
	codeFailedPrecondition code = 9
	codeAborted            code = 10
	codeOutOfRange         code = 11
	codeUnimplemented      code = 12
	codeInternal           code = 13
	codeUnavailable        code = 14
	codeDataLoss           code = 15
	codeUnauthenticated    code = 16
)

// failure is a google.rpc.Status: what an answer says instead of a result.
type failure struct {
	code    code
	message string
}

func refusal(c code, format string, args ...any) *failure {
	return &failure{code: c, message: fmt.Sprintf(format, args...)}
}

// failureOf maps what a handler returned to what the caller is told. This is
// the one place for that. The classes are those of containerd's errgrpc package,
// which would bring the protobuf runtime with it. ttrpc's server would make
// NotFound of a file that does not exist and the like; here only errors that
// were classed on purpose have a class, because a client acts on it.
func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	return &failure{code: codeOf(err), message: err.Error()}
}

// classes are those of errdefs, with the codes that they have on the wire.
var classes = []struct {
	class error
	code  code
}{
	{errdefs.ErrInvalidArgument, codeInvalidArgument},
	{errdefs.ErrNotFound, codeNotFound},
	{errdefs.ErrAlreadyExists, codeAlreadyExists},
	{errdefs.ErrPermissionDenied, codePermissionDenied},
	{errdefs.ErrResourceExhausted, codeResourceExhausted},
	{errdefs.ErrFailedPrecondition, codeFailedPrecondition},
	{errdefs.ErrConflict, codeFailedPrecondition},
	{errdefs.ErrNotModified, codeFailedPrecondition},
	{errdefs.ErrAborted, codeAborted},
	{errdefs.ErrOutOfRange, codeOutOfRange},
	{errdefs.ErrNotImplemented, codeUnimplemented},
	{errdefs.ErrInternal, codeInternal},
	{errdefs.ErrUnavailable, codeUnavailable},
	{errdefs.ErrDataLoss, codeDataLoss},
	{errdefs.ErrUnauthenticated, codeUnauthenticated},
	{errdefs.ErrUnknown, codeUnknown},
}

// codeOf an error is that of the class that errdefs finds in it. Context's errors
// count only where there is no other: they tell why something is, say,
// unavailable.
func codeOf(err error) code {
	found := errdefs.Resolve(err)
	late, cancelled := found == context.DeadlineExceeded, found == context.Canceled
	for _, c := range classes {
		if found == c.class || (late || cancelled) && errors.Is(err, c.class) {
			return c.code
		}
	}
	switch {
	case late:
		return codeDeadlineExceeded
	case cancelled:
		return codeCanceled
	}
	return codeUnknown
}

// Metadata is what a request carries besides its message: lists of values by
// key.
type Metadata map[string][]string

type metadataKey struct{}

// MetadataOf is that of the request that a handler was called for, or nil.
func MetadataOf(ctx context.Context) Metadata {
	metadata, _ := ctx.Value(metadataKey{}).(Metadata)
	return metadata
}
