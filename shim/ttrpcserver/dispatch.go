package ttrpcserver

// What a frame leads to: a call of a handler, a refusal or nothing. The rules,
// their order and the words are those of ttrpc's server, where its words have
// become what clients look for.

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// dispatch deals with a frame that is complete. It returns false, and has
// answered nothing, when no more requests are taken, which is for good.
func (c *conn) dispatch(frame []byte) bool {
	h := headerOf(frame)
	switch {
	case h.length > maxData:
		return c.refuse(h.stream, oversized(int(h.length)))
	case h.stream%2 != 1:
		return c.refuse(h.stream, invalid("StreamID must be odd for client initiated streams"))
	case h.kind == dataFrame:
		return c.dispatchData(h)
	case h.kind != requestFrame:
		return true // for protocols to come
	case h.stream <= c.last:
		return c.refuse(h.stream, invalid("StreamID cannot be re-used and must increment"))
	}
	// The flags of a request say whether the caller will send more. To a unary
	// method that makes no difference.
	c.last = h.stream
	call, err := decodeCall(frame[headerSize:])
	if err != nil {
		return c.refuse(h.stream, invalid("unmarshal request error: %v", err))
	}
	methods, ok := c.server.services[string(call.service)]
	if !ok {
		return c.refuse(h.stream, refusal(codeUnimplemented, "service %s", call.service))
	}
	m, ok := methods[string(call.method)]
	if !ok {
		return c.refuse(h.stream, refusal(codeUnimplemented, "method %s", call.method))
	}
	st := &stream{conn: c, id: h.stream, frame: frame, method: m, since: time.Now()}
	if !c.server.enter(st) {
		return false
	}
	if !st.parked {
		go st.run(call)
	}
	return true
}

// dispatchData deals with a data frame. A stream of a unary method takes no
// data: it counts as closed by the caller from its request on, and may be
// closed once more. The request itself goes on.
func (c *conn) dispatchData(h header) bool {
	switch {
	case !c.server.isOpen(c, h.stream):
		return c.refuse(h.stream, invalid("StreamID is no longer active"))
	case h.flags&flagNoData == 0:
		return c.refuse(h.stream, invalid("data handling error: ttrpc: stream closed"))
	case h.flags&flagRemoteClosed != 0 && h.length > 0:
		return c.refuse(h.stream, invalid("data close message cannot include data"))
	}
	return true
}

func invalid(format string, args ...any) *failure {
	return refusal(codeInvalidArgument, format, args...)
}

// refuse answers a frame that leads to no call. The answer goes to the id that
// the frame had, good or bad, so that the client can tell which it was.
func (c *conn) refuse(id uint32, why *failure) bool {
	st := &stream{conn: c, id: id, since: time.Now()}
	if !c.server.enter(st) {
		return false
	}
	st.finish(encodeAnswer(id, nil, why))
	return true
}

// run calls the handler and answers with what it returns, or with an error of
// its own when the handler does not return.
func (st *stream) run(c call) {
	var answer []byte
	defer func() {
		if answer == nil {
			value := recover()
			st.conn.server.options.OnPanic(st.method.path(), value, debug.Stack())
			answer = encodeAnswer(st.id, nil, refusal(codeInternal, "panic in %s: %v", st.method.path(), value))
		}
		st.finish(answer)
	}()
	ctx, cancel := contextOf(st.context(), st.since, c.timeout, c.metadata)
	defer cancel()
	result, err := st.method.handle(ctx, c.payload)
	if errors.Is(err, ErrDrop) {
		st.conn.drop(err)
	}
	if err != nil {
		result = nil
	}
	answer = encodeAnswer(st.id, result, failureOf(err))
}

// contextOf is the context of one request that came at since. A timeout of 0
// is none; one below has passed already.
func contextOf(ctx context.Context, since time.Time, timeout time.Duration, metadata Metadata) (context.Context, context.CancelFunc) {
	if metadata != nil {
		ctx = context.WithValue(ctx, metadataKey{}, metadata)
	}
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, since.Add(timeout))
}
