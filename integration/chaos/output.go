package main

// Where output goes, and what must have arrived there.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/chaos/mark"
	"github.com/cleatrun/cleat/integration/chaos/stream"
)

// loggerPiece is what a logger that is killed loses of each stream at most, see
// package cast.
const loggerPiece = 4096

// sink is where the output of one process goes.
type sink struct {
	Stdout, Stderr string // as containerd is told
	Terminal       bool

	kind    sinkKind
	name    string
	readers []*reader
	files   [2]string // of a log: stdout, stderr
}

func (w *world) newSink(name string, kind sinkKind) (*sink, error) {
	s := &sink{kind: kind, name: name}
	switch kind {
	case fileSink:
		s.files[0] = filepath.Join(w.logs, name+".log")
		s.Stdout = "file://" + s.files[0]
		s.Stderr = s.Stdout
	case loggerSink:
		s.files = [2]string{w.d.Path("marks", name+".out"), w.d.Path("marks", name+".err")}
		uri := url.URL{Scheme: "binary", Path: w.cast.logger, RawQuery: url.Values{"out": {s.files[0]}, "err": {s.files[1]}}.Encode()}
		s.Stdout, s.Stderr = uri.String(), uri.String()
	default:
		s.Terminal = kind == terminalSink
		for i, stream := range []string{"out", "err"} {
			if i == 1 && s.Terminal {
				break
			}
			r, err := newReader(filepath.Join(w.d.Fifos(), name+"-"+stream), name+"/"+stream, s.Terminal)
			if err != nil {
				return nil, err
			}
			s.readers = append(s.readers, r)
		}
		s.Stdout = s.readers[0].path
		if !s.Terminal {
			s.Stderr = s.readers[1].path
		}
	}
	return s, nil
}

// truth is what decides what must have arrived.
type truth struct {
	page *mark.Page
	runs program

	cut     bool // its shim was killed: what has arrived is the beginning of what was written
	killed  bool // by SIGKILL, maybe in the middle of a write
	loggers int  // how many of its loggers were killed
	full    bool // the disk of its log was, for a while
	again   bool // an attempt to create it has failed: what the OCI runtime said then is in a logger's stream
}

// judge tells what is wrong with what has arrived.
func (s *sink) judge(t truth) (wrong []violation) {
	bad := func(format string, args ...any) {
		wrong = append(wrong, violation{Category: outputBad, Text: fmt.Sprintf(format, args...)})
	}
	written := [2]int64{t.page.Out.Load(), t.page.Err.Load()}
	for i, r := range s.readers {
		at, err := r.result()
		if err != nil {
			bad("%v", err)
			continue
		}
		lowest, highest := written[i], written[i]
		if t.killed {
			highest += t.runs.Piece
		}
		if t.cut {
			lowest, highest = 0, highest+t.runs.Piece
		}
		if at < lowest || at > highest {
			bad("%d bytes of %s have arrived, of %d that were written", at, r.check.Name, written[i])
		}
	}
	for i, file := range s.files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil && (written[i] > 0 || !errors.Is(err, os.ErrNotExist)) && !t.cut {
			bad("%v", err)
			continue
		}
		name := s.name + [...]string{"/out", "/err"}[i]
		if t.again && s.kind == loggerSink {
			if begin := bytes.Index(text, []byte(name+" 0 ")); begin > 0 {
				text = text[begin:]
			} else if written[i] == 0 {
				continue
			}
		}
		log := stream.Read(text, name)
		if log.Wrong != nil {
			bad("%v", log.Wrong)
			continue
		}
		if log.Dropped > 0 && !t.full && t.loggers == 0 {
			bad("%d bytes of %s were dropped without need", log.Dropped, name)
		}
		missing := written[i] - log.Bytes - log.Dropped
		lowest, highest := int64(0), int64(t.loggers)*loggerPiece
		if t.killed {
			lowest = -t.runs.Piece
		}
		if t.cut {
			// The beginning, but for what loggers have lost.
			missing, lowest = log.Lost-log.Dropped, 0
		}
		if missing < lowest || missing > highest {
			bad("of %d bytes of %s there are %d, and %d are told to be dropped (%d gaps)", written[i], name, log.Bytes, log.Dropped, log.Gaps)
		}
	}
	return wrong
}

// away makes the client that reads go away for a while. It returns an error where
// there is none, or where it has ended.
func (s *sink) away(ctx context.Context, d time.Duration) error {
	if len(s.readers) == 0 {
		return errors.New("nobody reads it")
	}
	var leaving sync.WaitGroup
	for _, r := range s.readers {
		leaving.Go(func() { r.away(ctx, d) })
	}
	leaving.Wait()
	return nil
}

// finish reads to the end of the output, which must come: the process has ended
// and is deleted.
func (s *sink) finish(ctx context.Context) error {
	var failed error
	for _, r := range s.readers {
		failed = errors.Join(failed, r.finish(ctx))
	}
	return failed
}

// reader is a client that reads a FIFO.
type reader struct {
	path string

	presence sync.Mutex // held by who reads or is away

	mu     sync.Mutex // guards what follows
	check  stream.Check
	fd     int
	last   chan struct{} // closed when what comes next may be the end
	ended  chan struct{} // closed at the end
	failed error
}

func newReader(path, name string, terminal bool) (*reader, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make FIFO %s: %w", path, err)
	}
	r := &reader{path: path, check: stream.Check{Name: name, Terminal: terminal}, last: make(chan struct{}), ended: make(chan struct{})}
	var err error
	if r.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open FIFO %s: %w", path, err)
	}
	go r.read() // ends at the end of the output, after finish
	return r, nil
}

// read reads until there are no writers any more. There may be none before the
// process is there, and between two attempts to create it.
func (r *reader) read() {
	defer close(r.ended)
	buffer := make([]byte, 64<<10)
	for {
		// Seen before the read: what was written until now is in it.
		final := false
		select {
		case <-r.last:
			final = true
		default:
		}
		r.presence.Lock()
		r.mu.Lock()
		fd := r.fd
		r.mu.Unlock()
		n, err := unix.Read(fd, buffer)
		if n > 0 {
			r.mu.Lock()
			r.check.Write(buffer[:n])
			r.mu.Unlock()
		}
		r.presence.Unlock()
		switch {
		case n > 0:
		case n == 0 && err == nil && final:
			return
		case n == 0 && err == nil:
			time.Sleep(2 * time.Millisecond) // no writer yet: nothing tells when one comes
		case errors.Is(err, unix.EAGAIN):
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			unix.Poll(poll, 20)
		case errors.Is(err, unix.EINTR):
		default:
			r.mu.Lock()
			r.failed = err
			r.mu.Unlock()
			return
		}
	}
}

// away closes the FIFO, and opens it again after a while.
func (r *reader) away(ctx context.Context, d time.Duration) {
	r.presence.Lock()
	defer r.presence.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.last:
		return // too late: the process is deleted
	default:
	}
	unix.Close(r.fd)
	pause(ctx, d)
	r.fd, r.failed = unix.Open(r.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// there returns when the reader is not away, and keeps it.
func (s *sink) stay() {
	for _, r := range s.readers {
		r.presence.Lock()
		select {
		case <-r.last:
		default:
			close(r.last)
		}
		r.presence.Unlock()
	}
}

func (r *reader) finish(ctx context.Context) error {
	select {
	case <-r.ended:
		r.mu.Lock()
		defer r.mu.Unlock()
		unix.Close(r.fd)
		return errors.Join(r.failed, os.Remove(r.path))
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: somebody still has it open for writing", r.check.Name)
	}
}

func (r *reader) result() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.check.At, errors.Join(r.check.Wrong, r.failed)
}
