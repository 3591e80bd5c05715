package stdio

// This file takes a logger to another program of the same process.

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/handover"
)

// LoggerRecord is what is known of a logger.
type LoggerRecord struct {
	Kind int
	Path string
	Args []string `json:",omitempty"`
	// Stdout and Stderr are the pipes that it reads.
	Stdout string `json:",omitempty"`
	Stderr string `json:",omitempty"`
	// Program is the run, if there is one.
	Program  *ProgramRecord `json:",omitempty"`
	Pause    time.Duration
	Last     bool `json:",omitempty"`
	Over     bool `json:",omitempty"`
	Ending   bool `json:",omitempty"`
	Ended    bool `json:",omitempty"`
	Restarts int  `json:",omitempty"`
	// Dropped bytes came while it did not run.
	Dropped int64 `json:",omitempty"`
}

// ProgramRecord is a run of a logger.
type ProgramRecord struct {
	PID int
	// Pidfd stands for the process, Said is its stderr.
	Pidfd, Said string
	Words       []byte `json:",omitempty"`
	Began       time.Time
}

// hold stops what the logger is waited for. A start that is under way has to end
// before.
func (l *logger) hold(ctx context.Context) error {
	l.mu.Lock()
	close(l.held)
	kept := l.kept
	l.mu.Unlock()
	select {
	case <-kept:
	case <-ctx.Done():
		return fmt.Errorf("logger %s is being started: %w", l.target.path, context.Cause(ctx))
	}
	if p := l.program; p != nil {
		p.command.Interrupt()
		p.said.SetReadDeadline(past)
		<-p.heard
	}
	return nil
}

// goOn undoes hold, and begins to keep a restored logger.
func (l *logger) goOn() {
	l.mu.Lock()
	select {
	case <-l.held:
		l.held = make(chan struct{})
	default:
		l.mu.Unlock()
		return
	}
	kept := l.kept
	l.mu.Unlock()
	select {
	case <-kept:
	default:
		// It was not held: it takes a new start to see that it is.
		go func() {
			<-kept
			l.resume()
		}()
		return
	}
	l.resume()
}

func (l *logger) resume() {
	select {
	case <-l.ended:
		return
	default:
	}
	if p := l.program; p != nil {
		p.said.SetReadDeadline(never)
		p.listen()
		p.command.Continue()
	}
	l.begin()
}

func (l *logger) record(name string, files *handover.Files) LoggerRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := LoggerRecord{Kind: int(l.target.kind), Path: l.target.path, Args: l.target.args, Pause: firstRestart, Over: l.over, Ending: l.ending, Restarts: l.restarts, Dropped: l.dropped}
	select {
	case <-l.ended:
		r.Ended = true
		return r
	default:
	}
	for i, file := range []*string{&r.Stdout, &r.Stderr} {
		if pipe := l.pipes[i]; pipe != nil {
			*file = files.Add(fmt.Sprintf("%s/pipe-%d", name, i+1), pipe)
		}
	}
	select {
	case <-l.held:
	default:
		return r // for a trial: the rest is its goroutine's
	}
	r.Pause, r.Last = l.pause, l.last
	if p := l.program; p != nil {
		r.Program = &ProgramRecord{
			PID: p.command.PID(), Began: l.began, Words: p.words.bytes(),
			Pidfd: files.Add(name+"/pidfd", p.command.Pidfd()), Said: files.Add(name+"/said", p.said),
		}
		if r.Program.Pidfd == "" { // it has just ended
			r.Program = nil
		}
	}
	return r
}

// logger makes the logger of a record, held up.
func (t *taker) logger(s *Streams, r LoggerRecord) *logger {
	l := newLogger(target{kind: kind(r.Kind), path: r.Path, args: r.Args}, s.options)
	close(l.held)
	l.kept = make(chan struct{})
	close(l.kept)
	l.over, l.ending, l.restarts, l.dropped = r.Over, r.Ending, r.Restarts, r.Dropped
	l.pause, l.last = r.Pause, r.Last
	if r.Ended {
		close(l.ended)
		return l
	}
	l.pipes = [2]*os.File{t.file(r.Stdout), t.file(r.Stderr)}
	if p := r.Program; p != nil {
		l.program = &program{target: l.target, limit: s.options.Ready, said: t.file(p.Said), heard: make(chan struct{})}
		l.program.words.Write(p.Words)
		if pidfd := t.file(p.Pidfd); pidfd != nil {
			l.program.command = child.RestoreCommand(p.PID, pidfd)
		}
		l.command, l.running, l.began = l.program.command, true, p.Began
	}
	return l
}

func (w *words) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]byte(nil), w.text...)
}
