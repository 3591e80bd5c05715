// Package stdio connects the standard IO of a container's process with what the
// client named for it: FIFOs, files, logging programs, a terminal, or nothing.
//
// Where it can, the process gets the client's own end, and no byte passes
// through the shim: an init process without a terminal writes into the client's
// FIFO or the logger's pipe. Where something must stand between (an exec, whose
// children may hold its output open after it was deleted; a file; a terminal) a
// pump does, by splice(2) if the kernel can.
//
// This file is the life of one process's streams. uri.go reads what the client
// named, open.go opens it, fifo.go knows pipes, pump.go, copy.go and tty.go
// pass bytes on, console.go receives a terminal, logger.go runs a logger.
package stdio

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Spec is what the client asked for: one URI for each stream, empty for none.
// The URIs are handed back to clients as they came.
type Spec struct {
	Stdin    string `json:",omitempty"`
	Stdout   string `json:",omitempty"`
	Stderr   string `json:",omitempty"`
	Terminal bool   `json:",omitempty"`
}

// Options of the streams of one process.
type Options struct {
	// Direct allows the process to be given the client's FIFOs themselves.
	Direct bool
	// DrainFirst tells that the client asks for the end of the output (Drain)
	// before it stops reading it, as containerd's does for execs. Then the pipe
	// between process and shim is as large as the host allows, and Drain waits for
	// the client to have read all.
	DrainFirst bool
	// Listen makes sure that Said can tell what the launch writes to stderr, where
	// the client wants no stderr, too.
	Listen bool
	// UID and GID own the pipes that are made, so that the container's user
	// can open /dev/stdout anew.
	UID, GID int
	// Dir is a folder of the container's own, for the console's socket.
	Dir string
	// ContainerID and Namespace are what loggers are told.
	ContainerID, Namespace string
	// Ready bounds how long a logger may take to get ready; 0 means 10 seconds.
	Ready time.Duration
	// Grace is what a logger gets to end after its streams' end, and again
	// after SIGTERM; 0 means 10 seconds.
	Grace time.Duration
	Log   func(format string, args ...any)
}

// State tells, for inspection, how the streams are connected.
type State struct {
	Stdin  string `json:",omitempty"`
	Stdout string `json:",omitempty"`
	Stderr string `json:",omitempty"`
	// Width and Height of the terminal as last asked for.
	Width, Height uint16 `json:",omitempty"`
	StdinClosed   bool   `json:",omitempty"`
	// Loggers are the pids of the logging programs.
	Loggers []int `json:",omitempty"`
	// Gone tells that the process has been reaped, Closed that the streams are.
	Gone   bool `json:",omitempty"`
	Closed bool `json:",omitempty"`
}

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

	// With a terminal, console is there until it has come, and sink is where its
	// output will go.
	console  *consoleSocket
	sink     *end
	terminal *terminal

	state                  State
	attached, gone, closed bool
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
	s := &Streams{options: options}
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

// maxSaid bounds what Said returns; it is the end of what there is.
const maxSaid = 4 << 10

// Said takes what was written to stderr by a launch that has failed: that is the
// OCI runtime's, for the process never ran. It is empty where nothing stands
// between the process and the client or its logger.
func (s *Streams) Said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached || s.closed {
		return ""
	}
	for _, p := range s.outputs {
		if p.name == "stderr" {
			return p.unread(maxSaid)
		}
	}
	return ""
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
		s.connect(master)
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

// OpenStdin opens the client's FIFO and lets its bytes flow to the process. It
// is called when the process is about to run, after Attach.
//
// Not before: a client whose input is short is told by the opened FIFO that it
// can write all of it, and reacts to its end (by CloseIO) only once it knows
// the process that it made, which ctr forgets to do when that comes first.
func (s *Streams) OpenStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin == nil || s.closed || s.gone {
		return nil
	}
	defer s.closeStdin()
	reader, err := s.stdin.reader(false)
	if err != nil {
		return err
	}
	// Held for a moment at least: poll(2) tells no end of a FIFO that nobody
	// has written to since it was opened.
	if s.holdStdin, err = s.stdin.writer(true); err != nil {
		reader.Close()
		return err
	}
	if s.state.StdinClosed {
		closeFile(&s.holdStdin)
	}
	if s.terminal != nil {
		s.input = newTTYWriter("stdin", endOf(reader), s.terminal.join(), s.options.Log).pump
		s.input.atEnd = s.terminal.leave
	} else {
		s.input = newSplicer("stdin", endOf(reader), s.feed, s.options.Log)
		s.feed = nil
	}
	s.input.start()
	return nil
}

// closeStdin gives up what OpenStdin has not used.
func (s *Streams) closeStdin() {
	if s.stdin != nil {
		s.stdin.close()
		s.stdin = nil
	}
	if s.feed != nil {
		s.feed.close()
		s.feed = nil
	}
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

// CloseStdin gives up the shim's hold on the input: it ends when the client
// has closed its side, too.
func (s *Streams) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.StdinClosed = true
	closeFile(&s.holdStdin)
	return nil
}

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
		if attached && p.sourceGone() {
			p.advance(exited)
			linger(func() { <-p.done })
			continue
		}
		if attached {
			p.stop()
		} else {
			p.abandon()
		}
	}
	for _, l := range s.loggers {
		l.endOfOutput()
		lingering.mu.Lock()
		lingering.loggers = append(lingering.loggers, l)
		lingering.mu.Unlock()
		linger(func() {
			l.finish()
			lingering.mu.Lock()
			defer lingering.mu.Unlock()
			lingering.loggers = slices.DeleteFunc(lingering.loggers, func(other *logger) bool { return other == l })
		})
	}
	return nil
}

// State of the streams.
func (s *Streams) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Gone, state.Closed = s.gone, s.closed
	for _, l := range s.loggers {
		state.Loggers = append(state.Loggers, l.pid())
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

// lingering is what goes on after Close.
var lingering struct {
	mu      sync.Mutex // guards what follows
	n       int
	none    chan struct{} // closed when n gets 0; nil while nobody waits for that
	loggers []*logger     // that are waited for
}

// linger does f, which must be bounded by others, in the background.
func linger(f func()) {
	l := &lingering
	l.mu.Lock()
	l.n++
	l.mu.Unlock()
	go func() {
		f()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.n--; l.n == 0 && l.none != nil {
			close(l.none)
			l.none = nil
		}
	}()
}

// Settle waits until everything that closed streams still have to pass on is
// passed on, or until ctx ends; then the loggers that have not ended are killed.
// A shim calls it before it ends: nobody would do that later.
func Settle(ctx context.Context) error {
	l := &lingering
	l.mu.Lock()
	if l.n > 0 && l.none == nil {
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
	for _, logger := range l.loggers {
		logger.command.Signal(unix.SIGKILL)
	}
	return errors.New("output of deleted containers is not taken by its clients or loggers")
}
