package stdio

// This file opens what the client named for each stream, and makes what stands
// between it and the process.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// open fills a new Streams. What it has opened when it fails is closed by
// Close.
func (s *Streams) open(ctx context.Context, spec Spec) error {
	stdin, err := parse("stdin", spec.Stdin)
	if err == nil && stdin.kind != none && stdin.kind != fifo {
		err = invalid("stdin", spec.Stdin, "input comes from a FIFO")
	}
	if err != nil {
		return err
	}
	stdout, err := parse("stdout", spec.Stdout)
	if err != nil {
		return err
	}
	stderr, err := parse("stderr", spec.Stderr)
	if err != nil {
		return err
	}
	// One logger takes both streams when both have the same URI.
	var logs [2]*os.File
	switch {
	case spec.Terminal:
		// A terminal has one output; the URI for stderr stands for nothing.
		if stdout.logger() {
			logs[0], err = s.startLogger(ctx, stdout, false, s.ourPipe)
		}
	case stdout.logger() && spec.Stdout == spec.Stderr:
		logs[0], logs[1], err = s.startLoggerOfBoth(ctx, stdout)
	default:
		if stdout.logger() {
			logs[0], err = s.startLogger(ctx, stdout, false, s.childsPipe)
		}
		if err == nil && stderr.logger() {
			logs[1], err = s.startLogger(ctx, stderr, true, s.childsPipe)
		}
	}
	if err != nil {
		closeFile(&logs[0])
		closeFile(&logs[1])
		return err
	}
	if spec.Terminal {
		return s.openTerminal(stdin, stdout, logs[0])
	}
	s.child[1], s.child[2] = logs[0], logs[1]
	if s.child[0], s.state.Stdin, err = s.openInput(stdin); err != nil {
		return err
	}
	if s.child[1] == nil {
		s.child[1], s.state.Stdout, err = s.openOutput("stdout", stdout)
	}
	if err == nil && s.child[2] == nil {
		s.child[2], s.state.Stderr, err = s.openOutput("stderr", stderr)
	}
	return err
}

// openTerminal opens the client's ends for a terminal and the socket by which
// it will come.
func (s *Streams) openTerminal(stdin, stdout target, log *os.File) (err error) {
	if log != nil {
		s.sink = endOf(log)
	} else if s.sink, err = s.openSink("stdout", stdout); err != nil {
		return err
	}
	if stdin.kind == fifo {
		if s.stdin, err = lookupFIFO("stdin", stdin.path); err != nil {
			return err
		}
	}
	s.state.Stdout = "terminal"
	s.console, err = newConsoleSocket(s.options.Dir)
	return err
}

// openInput returns the process's end of stdin. The client's FIFO is looked up
// now and opened by OpenStdin, so what the process gets is always a pipe.
func (s *Streams) openInput(t target) (childs *os.File, how string, err error) {
	if t.kind == none {
		childs, err = os.Open(os.DevNull)
		return childs, "", err
	}
	if s.stdin, err = lookupFIFO("stdin", t.path); err != nil {
		return nil, "", err
	}
	ours, childs, err := pipeToChild("stdin", s.options)
	if err != nil {
		return nil, "", err
	}
	s.feed = endOf(ours)
	return childs, "spliced", nil
}

// openOutput returns the process's end of stdout or stderr.
func (s *Streams) openOutput(name string, t target) (childs *os.File, how string, err error) {
	switch {
	case t.kind == none && !(s.options.Listen && name == "stderr"):
		childs, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return childs, "", err
	case t.kind == fifo && s.direct():
		n, err := s.holdFIFO(name, t)
		if err != nil {
			return nil, "", err
		}
		defer n.close()
		childs, err = n.writer(true)
		return childs, "direct", err
	}
	sink, err := s.openSink(name, t)
	if err != nil {
		return nil, "", err
	}
	ours, childs, err := pipeFromChild(name, s.options)
	if err != nil {
		sink.close()
		return nil, "", err
	}
	if t.kind == fifo || t.kind == none {
		s.outputs = append(s.outputs, newSplicer(name, endOf(ours), sink, s.options.Log))
		return childs, "spliced", nil
	}
	// splice(2) does not write to a file that is appended to.
	s.outputs = append(s.outputs, newCopier(name, endOf(ours), sink, &fileBuffers, s.options.Log).pump)
	return childs, "copied", nil
}

// openSink opens where the shim itself writes output to.
func (s *Streams) openSink(name string, t target) (*end, error) {
	switch t.kind {
	case fifo:
		n, err := s.holdFIFO(name, t)
		if err != nil {
			return nil, err
		}
		defer n.close()
		writer, err := n.writer(false)
		if err != nil {
			return nil, err
		}
		return endOf(writer), nil
	case file:
		f, err := openLog(name, t.path)
		if err != nil {
			return nil, err
		}
		return endOf(f), nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return endOf(null), nil
}

// holdFIFO holds a read end of a client's FIFO. It stays as large as it is: when a
// client learns that the process has ended, what is in there may not have been
// read yet, and containerd's Go client throws it away in Task.Delete.
func (s *Streams) holdFIFO(name string, t target) (*node, error) {
	n, err := lookupFIFO(name, t.path)
	if err != nil {
		return nil, err
	}
	hold, err := n.reader(true)
	if err != nil {
		n.close()
		return nil, err
	}
	s.holds = append(s.holds, hold)
	return n, nil
}

// openLog opens a file to be appended to, and makes the folders above it.
func openLog(stream, path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", stream, err, class(err))
	}
	// Not to wait for the reader of what turns out to be a FIFO.
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", stream, &os.PathError{Op: "open", Path: path, Err: err}, class(err))
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode()&os.ModeCharDevice == 0 {
		err = invalid(stream, path, "it is not a file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// direct tells whether the process may get the client's FIFO itself. An owner
// of the container's own could not open it anew, and SELinux would not let a
// confined process use a file that is not labelled for it.
func (s *Streams) direct() bool {
	return s.options.Direct && s.options.UID == 0 && s.options.GID == 0 && !enforcing()
}

// enforcing tells whether SELinux is in force (selinuxfs, security/selinux).
var enforcing = sync.OnceValue(func() bool {
	mode, err := os.ReadFile("/sys/fs/selinux/enforce")
	return err == nil && string(mode) == "1"
})

// startLogger runs a logger for one stream and returns the end of its pipe that
// make gives.
func (s *Streams) startLogger(ctx context.Context, t target, stderr bool, pipe func(string) (r, w *os.File, err error)) (*os.File, error) {
	name := "stdout"
	if stderr {
		name = "stderr"
	}
	r, w, err := pipe(name)
	if err != nil {
		return nil, err
	}
	l := &logger{target: t, options: s.options}
	l.pipes[0], l.pipes[1] = r, nil
	if stderr {
		l.pipes[0], l.pipes[1] = nil, r
	}
	return w, s.run(ctx, l)
}

func (s *Streams) startLoggerOfBoth(ctx context.Context, t target) (stdout, stderr *os.File, err error) {
	l := &logger{target: t, options: s.options}
	if l.pipes[0], stdout, err = s.childsPipe("stdout"); err != nil {
		return nil, nil, err
	}
	if l.pipes[1], stderr, err = s.childsPipe("stderr"); err != nil {
		closeFile(&l.pipes[0])
		return stdout, nil, err
	}
	return stdout, stderr, s.run(ctx, l)
}

func (s *Streams) run(ctx context.Context, l *logger) error {
	if err := l.start(ctx); err != nil {
		l.endOfOutput()
		return err
	}
	s.loggers = append(s.loggers, l)
	return nil
}

// childsPipe is a pipe between the process and a logger, ourPipe one between
// the shim and a logger.
func (s *Streams) childsPipe(name string) (r, w *os.File, err error) {
	return s.loggerPipe(name, true)
}

func (s *Streams) ourPipe(name string) (r, w *os.File, err error) { return s.loggerPipe(name, false) }

func (s *Streams) loggerPipe(name string, blocking bool) (r, w *os.File, err error) {
	fds, err := newPipe(s.options)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	grow(fds[1])
	if r, err = newEnd(fds[0], name, true); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if w, err = newEnd(fds[1], name, blocking); err != nil {
		r.Close()
		return nil, nil, err
	}
	return r, w, nil
}
