// Package stdio connects the standard IO of a container's process with what the
// client named for it: FIFOs, files, logging programs, a terminal, or nothing.
//
// Where it can, the process gets the client's own end, and no byte passes
// through the shim: an init process without a terminal writes into the client's
// FIFO or the logger's pipe. Where something must stand between (an exec, whose
// children may hold its output open after it was deleted; a file; a terminal) a
// pump does, by splice(2) if the kernel can.
//
// What becomes of output that nobody takes is policy.go: the process waits, or it
// is kept, in a file or in memory.
//
// This file is the life of one process's streams, with spec.go, input.go and
// ending.go. uri.go reads what the client named, open.go opens it, fifo.go knows
// pipes, console.go receives a terminal, logger.go has a logger run. Bytes are
// passed on by pumps (pump.go): splice.go and typing.go do so as they come,
// relay.go from a source (source.go) to a sink (sink.go, logfile.go), with what
// it keeps on a ring (ring.go), as the records of a log (encoder.go) if asked to.
package stdio

import (
	"context"
	"os"
	"sync"
)

// Streams are the standard IO of one process, from before it is launched until
// it is deleted. All methods are safe for concurrent use.
type Streams struct {
	options Options

	mu sync.Mutex // guards what follows
	// child are the process's own ends, until Attach has given them up.
	child [3]*os.File
	// holdStdin is a write end of the client's FIFO, so that a client that
	// detaches does not end the input. holds are read ends of the client's
	// FIFOs, so that one that is away costs the process no SIGPIPE and what is
	// buffered is there for it when it is back.
	holdStdin *os.File
	holds     []*os.File
	// stdin is the client's FIFO and feed what it will be passed on to, until
	// OpenStdin.
	stdin   *node
	feed    *end
	input   *pump
	outputs []*pump
	loggers []*logger

	// file is the log of the streams, if they have one; the relays own it.
	file *logFile

	// With a terminal, console is there until it has come, and coming is what its
	// output will pass through.
	console  *consoleSocket
	coming   *relay
	terminal *terminal

	state                  State
	attached, gone, closed bool
	// held is closed while the streams are held up; see Hold. ends are the
	// goroutines that finish closed ones.
	held chan struct{}
	ends sync.WaitGroup
}

// Open opens what spec names and makes what stands between. It never waits for
// a client; it waits for loggers to be ready, as long as ctx and Options.Ready
// allow. When it fails nothing is left open.
func Open(ctx context.Context, spec Spec, options Options) (*Streams, error) {
	if options.Ready == 0 {
		options.Ready = defaultReady
	}
	if options.Grace == 0 {
		options.Grace = defaultGrace
	}
	s := &Streams{options: options, held: make(chan struct{})}
	if err := s.open(ctx, spec); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Child returns the ends that the process is to be launched with; they stay
// the Streams'. With a terminal they are nil.
func (s *Streams) Child() (stdin, stdout, stderr *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child[0], s.child[1], s.child[2]
}

// ConsoleSocket is the path that the OCI runtime sends the terminal to, or
// empty without one.
func (s *Streams) ConsoleSocket() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.console == nil {
		return ""
	}
	return s.console.path
}

// Attach is called when the process has been launched: it takes the terminal
// from the OCI runtime, gives up the process's own ends, and lets output flow.
// ctx bounds the wait for the terminal.
func (s *Streams) Attach(ctx context.Context) error {
	s.mu.Lock()
	console := s.console
	s.mu.Unlock()
	var master *os.File
	if console != nil {
		var err error
		if master, err = console.receive(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		if master != nil {
			master.Close()
		}
		return os.ErrClosed
	}
	if master != nil {
		if err := s.connect(master); err != nil {
			return err
		}
	}
	s.closeChild()
	for _, p := range s.outputs {
		p.start()
	}
	s.attached = true
	if s.gone {
		s.tellExit()
	}
	return nil
}

// Resize sets the size of the terminal, now or as soon as there is one.
func (s *Streams) Resize(width, height uint16) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Width, s.state.Height = width, height
	if s.terminal == nil {
		return nil
	}
	return s.terminal.resize(width, height)
}

// State of the streams.
func (s *Streams) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Gone, state.Closed = s.gone, s.closed
	for _, p := range s.outputs {
		if r, is := p.passer.(*relay); is {
			state.Outputs = append(state.Outputs, r.state())
		}
	}
	for _, l := range s.loggers {
		state.Loggers = append(state.Loggers, l.state())
	}
	return state
}

func (s *Streams) closeChild() {
	for i := range s.child {
		closeFile(&s.child[i])
	}
}

func closeFile(f **os.File) {
	if *f != nil {
		(*f).Close()
		*f = nil
	}
}
