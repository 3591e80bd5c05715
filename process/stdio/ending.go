package stdio

// This file is the end of the streams: what was written before is passed on.

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Exited tells that the process has been reaped: nothing more is read for it,
// and a terminal that hangs up is at its end.
func (s *Streams) Exited() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.attached {
		s.tellExit()
	}
}

func (s *Streams) tellExit() {
	for _, p := range s.outputs {
		p.advance(exited)
	}
	if s.input != nil {
		s.input.advance(stopping)
	}
}

// Drain waits until all output has reached the client's side and loggers have
// ended by themselves, or until ctx ends, when it returns ctx's error.
func (s *Streams) Drain(ctx context.Context) error {
	s.mu.Lock()
	outputs, loggers, attached := s.outputs, s.loggers, s.attached
	s.mu.Unlock()
	if !attached {
		return nil
	}
	for _, p := range outputs {
		select {
		case <-p.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s.options.DrainFirst {
		if err := s.awaitReaders(ctx); err != nil {
			return err
		}
	}
	for _, l := range loggers {
		l.endOfOutput()
		select {
		case <-l.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Close ends the streams. Output that was written before by processes that
// have all ended is still passed on in the background for as long as the client
// takes it (see Settle); from processes that go on nothing is taken any more.
func (s *Streams) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.closeChild()
	closeFile(&s.holdStdin)
	s.closeStdin()
	s.disconnect()
	// Without our read end a client that is gone is an EPIPE, so nothing waits
	// for it for ever.
	for i := range s.holds {
		closeFile(&s.holds[i])
	}
	attached := s.attached
	s.mu.Unlock()

	// From here on nobody else changes these.
	if s.input != nil {
		s.input.stop()
	}
	for _, p := range s.outputs {
		switch {
		case p.ended():
		case !attached:
			p.close() // it was never started
			close(p.done)
		case p.sourceGone():
			p.advance(closing)
		default:
			p.stop()
		}
	}
	for _, l := range s.loggers {
		l.endOfOutput()
	}
	lingering.add(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beginFinish()
	return nil
}

// beginFinish starts finish; the caller holds s.mu.
func (s *Streams) beginFinish() {
	s.ends.Add(1)
	go func(held <-chan struct{}) {
		defer s.ends.Done()
		s.finish(held)
	}(s.held)
}

// finish waits for what Close has left to the background. It is bounded by
// those who read, and by Options.Grace. When held is closed it returns, and can be
// called again.
func (s *Streams) finish(held <-chan struct{}) {
	for _, p := range s.outputs {
		select {
		case <-p.done:
		case <-held:
			return
		}
	}
	for _, l := range s.loggers {
		if !l.finish(held) {
			return
		}
	}
	lingering.remove(s)
}

// lingering are closed streams that are not at their end.
var lingering set

type set struct {
	mu      sync.Mutex // guards what follows
	streams map[*Streams]bool
	none    chan struct{} // closed when there are none; nil while nobody waits for that
}

func (l *set) add(s *Streams) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.streams == nil {
		l.streams = map[*Streams]bool{}
	}
	l.streams[s] = true
}

func (l *set) remove(s *Streams) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams, s)
	if len(l.streams) == 0 && l.none != nil {
		close(l.none)
		l.none = nil
	}
}

// Settle waits until everything that closed streams still have to pass on is
// passed on, or until ctx ends; then the loggers that have not ended are killed.
// A shim calls it before it ends: nobody would do that later.
func Settle(ctx context.Context) error {
	l := &lingering
	l.mu.Lock()
	if len(l.streams) > 0 && l.none == nil {
		l.none = make(chan struct{})
	}
	none := l.none
	l.mu.Unlock()
	if none == nil {
		return nil
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := int64(0)
	for s := range l.streams {
		for _, output := range s.State().Outputs {
			waiting += output.Waiting
		}
		for _, logger := range s.loggers {
			logger.kill()
		}
	}
	if waiting > 0 {
		return fmt.Errorf("%d bytes of output of deleted containers are lost: their clients or loggers do not take them", waiting)
	}
	return errors.New("output of deleted containers is not taken by its clients or loggers")
}
