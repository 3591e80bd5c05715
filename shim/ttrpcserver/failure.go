package ttrpcserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
)

// failure is a google.rpc.Status: what an answer says instead of a result.
type failure struct {
	code    codes.Code
	message string
}

func refusal(code codes.Code, format string, args ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, args...)}
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
	code  codes.Code
}{
	{errdefs.ErrInvalidArgument, codes.InvalidArgument},
	{errdefs.ErrNotFound, codes.NotFound},
	{errdefs.ErrAlreadyExists, codes.AlreadyExists},
	{errdefs.ErrPermissionDenied, codes.PermissionDenied},
	{errdefs.ErrResourceExhausted, codes.ResourceExhausted},
	{errdefs.ErrFailedPrecondition, codes.FailedPrecondition},
	{errdefs.ErrConflict, codes.FailedPrecondition},
	{errdefs.ErrNotModified, codes.FailedPrecondition},
	{errdefs.ErrAborted, codes.Aborted},
	{errdefs.ErrOutOfRange, codes.OutOfRange},
	{errdefs.ErrNotImplemented, codes.Unimplemented},
	{errdefs.ErrInternal, codes.Internal},
	{errdefs.ErrUnavailable, codes.Unavailable},
	{errdefs.ErrDataLoss, codes.DataLoss},
	{errdefs.ErrUnauthenticated, codes.Unauthenticated},
	{errdefs.ErrUnknown, codes.Unknown},
}

// codeOf an error is that of the class that errdefs finds in it. Context's errors
// count only where there is no other: they tell why something is, say,
// unavailable.
func codeOf(err error) codes.Code {
	found := errdefs.Resolve(err)
	late, cancelled := found == context.DeadlineExceeded, found == context.Canceled
	for _, c := range classes {
		if found == c.class || (late || cancelled) && errors.Is(err, c.class) {
			return c.code
		}
	}
	switch {
	case late:
		return codes.DeadlineExceeded
	case cancelled:
		return codes.Canceled
	}
	return codes.Unknown
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
