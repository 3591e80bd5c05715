package process

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cleatrun/cleat/oci/stack"
	"github.com/containerd/errdefs"
)

// call is a state-changing operation under way. It runs to its end whatever
// becomes of those who asked for it.
type call struct {
	op Operation
	// settled is closed when the state and the event of the operation are
	// published; done, later, when it is answered with err.
	settled, done chan struct{}
	err           error
	began         time.Time
	// ctx is the operation's own; abort ends it with a reason.
	ctx   context.Context
	abort context.CancelCauseFunc
}

func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of %q: %w", c.op, context.Cause(ctx))
	}
}

// Done is an operation that has ended.
type Done struct {
	Container string
	// Exec is the exec's id, or empty for the init process.
	Exec      string
	Operation Operation
	Began     time.Time
	Took      time.Duration
	Err       error
}

// work is the body of an operation. It runs without any lock and returns the
// event to be published with the new state, or nil.
type work func(ctx context.Context) (*Event, error)

// do carries an operation out: one at a time for each process, allowed by the
// lifecycle table when it begins and when it ends. Who asks for the operation
// that is already under way gets its answer. ctx bounds only the waiting.
//
// admit, if not nil, is asked under the container's lock as a last condition.
func (p *Process) do(ctx context.Context, op Operation, admit func() error, body work) error {
	c := p.container
	c.mu.Lock()
	for p.call != nil {
		current := p.call
		c.mu.Unlock()
		if current.op == op && op.joins() {
			return current.wait(ctx)
		}
		select {
		case <-current.done:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of %q before %q: %w", current.op, op, context.Cause(ctx))
		}
		c.mu.Lock()
	}
	if _, err := p.next(op); err != nil {
		c.mu.Unlock()
		return err
	}
	if admit != nil {
		if err := admit(); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	current := &call{op: op, began: time.Now(), settled: make(chan struct{}), done: make(chan struct{})}
	current.ctx, current.abort = context.WithCancelCause(context.Background())
	p.call = current
	p.state.Operation = op.String()
	p.publish()
	c.mu.Unlock()

	go p.carryOut(current, body)
	return current.wait(ctx)
}

func (p *Process) carryOut(current *call, body work) {
	stack.Take16K()
	event, err := p.guard(current, body)
	current.abort(nil)
	if err != nil && p.isExec() && current.op == OpStart {
		err = p.neverRan(err)
	}
	c := p.container
	c.mu.Lock()
	if err == nil {
		// The process may have ended meanwhile; then the table decides anew.
		var after State
		after, err = p.next(current.op)
		if p.state.State == Stopped && current.op.outlives() {
			after, err = Stopped, nil
		}
		if err == nil {
			p.state.State = after
			appeared := current.op.launches() && !p.launched
			p.launched = p.launched || appeared
			// The container's delete is its last event.
			if event != nil && (!p.isExec() || c.init.state.State != Deleted) {
				c.tell(*event)
			}
			if appeared && !p.isExec() && c.oom {
				c.tell(Event{Kind: OutOfMemory})
			}
		}
	} else if current.op.creates() {
		// It never was. Nothing can be asked of it any more.
		p.state.State = Deleted
	}
	p.state.Operation = ""
	p.publish()
	close(current.settled)
	c.mu.Unlock()

	if current.op == OpCreate && err == nil && p.child != nil && p.child.Ended() {
		// Killed before it was ready: who asked learns of a stopped container.
		<-p.exited
	}
	if !p.isExec() && p.State().State == Deleted {
		p.release()
		c.gone()
	}
	if c.done != nil {
		c.done(Done{Container: c.ID, Exec: p.state.ExecID, Operation: current.op, Began: current.began, Took: time.Since(current.began), Err: err})
	}
	c.mu.Lock()
	p.call = nil
	c.mu.Unlock()
	current.err = err
	close(current.done)
}

// guard runs the body so that a panic is the error of this operation and of
// nothing else.
func (p *Process) guard(current *call, body work) (event *Event, err error) {
	defer func() {
		if v := recover(); v != nil {
			p.container.log("panic in %q of container %s: %v\n%s", current.op, p.container.ID, v, debug.Stack())
			err = fmt.Errorf("panic in %q: %v: %w", current.op, v, errdefs.ErrInternal)
		}
	}()
	ctx, cancel := context.WithTimeout(current.ctx, p.container.bounds().Operation)
	defer cancel()
	return body(ctx)
}
