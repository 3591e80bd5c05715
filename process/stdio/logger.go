package stdio

// This file keeps a logging program (the schemes binary and binary-v2) running
// for as long as there is output: one that ends before is started again, and
// what is in its pipes waits meanwhile. program.go is one run of it.

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"golang.org/x/sys/unix"
)

const (
	// defaultReady bounds the wait for a logger to get ready.
	defaultReady = 10 * time.Second
	// defaultGrace is what a logger gets to end after its streams' end, and
	// again after SIGTERM.
	defaultGrace = 10 * time.Second
	// firstRestart and lastRestart bound the wait before a logger is started
	// again; it doubles until one has run for as long as lastRestart.
	firstRestart = 100 * time.Millisecond
	lastRestart  = time.Minute
	// outage is the wait from which on its output is not kept for it.
	outage = time.Second
)

// logger is one logging program.
type logger struct {
	target  target
	options Options
	ended   chan struct{} // closed when it will not be started again
	wake    chan struct{} // ends the wait for the next start

	// pipes are the read ends of stdout and stderr, nil for a stream that is not
	// its. The shim holds them, too: a logger that crashes is not the
	// container's SIGPIPE, and what it has not read is there for the next run.
	pipes [2]*os.File

	// Of the goroutine that keeps it: the run, if there is one, since when, how
	// long to wait before the next one, and whether that, or this, was begun at
	// the end of the output, and is the last.
	program *program
	began   time.Time
	pause   time.Duration
	last    bool

	mu       sync.Mutex     // guards what follows
	command  *child.Command // of the last run
	running  bool
	over     bool // it is the end of the output: no start more than one
	ending   bool // it was told to end: no start
	restarts int
	dropped  int64         // bytes that came while it did not run
	held     chan struct{} // closed while the logger is held up
	kept     chan struct{} // closed when no goroutine keeps it
}

func newLogger(t target, o Options) *logger {
	return &logger{target: t, options: o, ended: make(chan struct{}), wake: make(chan struct{}, 1), held: make(chan struct{}), pause: firstRestart}
}

// start runs the program and waits until it is ready. When that fails the logger
// is at its end.
func (l *logger) start(ctx context.Context) error {
	p, err := l.run(ctx)
	if err != nil {
		l.closePipes()
		return err
	}
	l.program, l.began = p, time.Now()
	l.begin()
	return nil
}

// begin has a goroutine keep the logger.
func (l *logger) begin() {
	kept := make(chan struct{})
	l.mu.Lock()
	l.kept = kept
	held := l.held
	l.mu.Unlock()
	go func() {
		defer close(kept)
		l.keep(held)
	}()
}

// keep has the logger run until the end of the output; that, or finish, ends it.
// It returns before when held is closed, and can be called again then.
func (l *logger) keep(held <-chan struct{}) {
	for {
		if l.program != nil {
			if !l.await(held) {
				return
			}
			if time.Since(l.began) >= lastRestart {
				l.pause = firstRestart
			}
		}
		if l.last || !l.goesOn() {
			if n := l.unread(); n > 0 {
				l.options.Log("logger %s: %d bytes of output are lost: it has not read them", l.target.path, n)
			}
			l.closePipes()
			close(l.ended)
			return
		}
		if !l.sleep(held) {
			return
		}
		l.pause = min(2*l.pause, lastRestart)
		l.last = l.isOver()
		p, err := l.run(context.Background()) // bounded by Options.Ready
		l.mu.Lock()
		l.restarts++
		l.mu.Unlock()
		if err != nil {
			l.options.Log("%v", err)
			continue
		}
		l.program, l.began = p, time.Now()
	}
}

// run starts the program and waits until it is ready.
func (l *logger) run(ctx context.Context) (*program, error) {
	p, err := startProgram(ctx, l.target, l.options, l.pipes)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.command, l.running = p.command, true
	ending := l.ending
	l.mu.Unlock()
	if ending {
		p.command.Signal(unix.SIGTERM)
	}
	return p, nil
}

// await waits for the end of the run, and tells of a bad one; false when held is
// closed before.
func (l *logger) await(held <-chan struct{}) bool {
	p := l.program
	state, ended := p.ended(held)
	if !ended {
		return false
	}
	l.program = nil
	l.mu.Lock()
	l.running = false
	l.mu.Unlock()
	if state != nil && !state.Success() {
		l.options.Log("logger %s: %s %s", l.target.path, state, p.words.String())
	}
	return true
}

// goesOn tells whether there is more to log, for a logger that has ended.
func (l *logger) goesOn() bool {
	l.mu.Lock()
	over, ending := l.over, l.ending
	l.mu.Unlock()
	return !ending && (l.unread() > 0 || !over && !l.atEnd())
}

// isOver tells whether nothing more will come than what is in the pipes.
func (l *logger) isOver() bool {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	return over || l.atEnd()
}

// atEnd tells whether nobody can write to the pipes any more.
func (l *logger) atEnd() bool {
	for _, pipe := range l.pipes {
		if pipe != nil && !pipeHungUp(int(pipe.Fd())) {
			return false
		}
	}
	return true
}

func (l *logger) unread() (n int) {
	for _, pipe := range l.pipes {
		if pipe != nil {
			n += unread(int(pipe.Fd()))
		}
	}
	return n
}

// sleep waits until it is time for the next start: at once, at the end of the
// output. A logger that ends again and again is none: where the process would
// wait for it, what comes meanwhile is dropped. It returns false when held is
// closed before.
func (l *logger) sleep(held <-chan struct{}) bool {
	if l.isOver() {
		return true
	}
	if l.pause >= outage && l.options.Logs.blocks() {
		defer l.discard()()
	}
	timer := time.NewTimer(l.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.wake:
	case <-held:
		return false
	}
	return true
}

// discard empties the pipes until the function that it returns is called.
func (l *logger) discard() (stop func()) {
	var dropped atomic.Int64
	var readers []*os.File
	var ends sync.WaitGroup
	for _, pipe := range l.pipes {
		if pipe == nil {
			continue
		}
		// As a description of its own, for the other one is blocking.
		r, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(pipe.Fd())), os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			l.options.Log("logger %s: its output is not read: %v", l.target.path, err)
			continue
		}
		readers = append(readers, r)
		ends.Go(func() {
			buf := make([]byte, 4<<10)
			for {
				n, err := r.Read(buf)
				dropped.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	return func() {
		for _, r := range readers {
			r.SetReadDeadline(past)
		}
		ends.Wait()
		for _, r := range readers {
			r.Close()
		}
		if n := dropped.Load(); n > 0 {
			l.options.Log("logger %s: %d bytes of output are dropped: it does not run", l.target.path, n)
			l.mu.Lock()
			l.dropped += n
			l.mu.Unlock()
		}
	}
}

func (l *logger) closePipes() {
	closeFile(&l.pipes[0])
	closeFile(&l.pipes[1])
}

// endOfOutput tells that nothing more will be written than what is in the pipes.
func (l *logger) endOfOutput() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.wakeUp()
}

func (l *logger) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// finish waits for the logger's end and, when it does not come, brings it
// about. It is bounded. It returns false when held is closed before.
func (l *logger) finish(held <-chan struct{}) bool {
	for _, signal := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		if signal != 0 {
			l.end(signal)
		}
		timer := time.NewTimer(l.options.Grace)
		select {
		case <-l.ended:
			timer.Stop()
			return true
		case <-held:
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
	l.options.Log("logger %s (process %d) does not end", l.target.path, l.state().PID)
	return true
}

// end sends the logger a signal after which it is not started again.
func (l *logger) end(signal unix.Signal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	if l.running {
		l.command.Signal(signal)
	}
	l.wakeUp()
}

func (l *logger) kill() { l.end(unix.SIGKILL) }

func (l *logger) state() LoggerState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LoggerState{Program: l.target.path, Restarts: l.restarts, Dropped: l.dropped}
	if l.running {
		s.PID = l.command.PID()
	}
	return s
}
