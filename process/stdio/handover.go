package stdio

// This file takes streams to another program of the same process.

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// Hold stops all that passes bytes on, between two of them; GoOn undoes it.
func (s *Streams) Hold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.attached {
		return nil
	}
	if len(s.outputs) > 0 || s.input != nil || len(s.loggers) > 0 || len(s.holds) > 0 || s.stdin != nil {
		return fmt.Errorf("standard IO that is not the null device cannot be handed over: %w", errdefs.ErrNotImplemented)
	}
	return nil
}

// Restore makes the streams that another program has handed over. They are held
// up.
func Restore(options Options, state State) *Streams {
	return &Streams{options: options, state: state, attached: true, gone: state.Gone, closed: state.Closed}
}
