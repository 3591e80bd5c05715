package stdio

// This file opens what the client named for each stream, and makes what stands
// between it and the process.

import (
	"context"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// open fills a new Streams. What it has opened when it fails is closed by
// Close.
func (s *Streams) open(ctx context.Context, spec Spec) error {
	if err := s.options.Logs.Check(); err != nil {
		return err
	}
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
	if spec.Terminal {
		// A terminal has one output; the URI for stderr stands for nothing.
		stderr = target{}
	} else if stdout.kind == file && stderr.kind == file && stdout.path == stderr.path && (stdout.rotation != stderr.rotation || stdout.format != stderr.format) {
		return invalid("stderr", spec.Stderr, "it is the file of stdout with other parameters")
	}
	logs, err := s.startLoggers(ctx, spec, stdout, stderr)
	defer func() {
		closeFile(&logs[0])
		closeFile(&logs[1])
	}()
	if err != nil {
		return err
	}
	if spec.Terminal {
		return s.openTerminal(stdin, stdout, &logs[0])
	}
	if s.child[0], s.state.Stdin, err = s.openInput(stdin); err != nil {
		return err
	}
	if s.child[1], s.state.Stdout, err = s.openOutput("stdout", stdout, &logs[0]); err != nil {
		return err
	}
	s.child[2], s.state.Stderr, err = s.openOutput("stderr", stderr, &logs[1])
	return err
}

// startLoggers runs the loggers of the streams, which takes longest and fails
// most, and returns the ends of their pipes that are written to.
func (s *Streams) startLoggers(ctx context.Context, spec Spec, stdout, stderr target) (logs [2]*os.File, err error) {
	// The shim's end, when it passes the output on, must never wait.
	blocking := !spec.Terminal && s.options.Logs.blocks()
	// One logger takes both streams when both have the same URI.
	both := stdout.logger() && stderr.logger() && spec.Stdout == spec.Stderr
	for i, t := range []target{stdout, stderr} {
		if !t.logger() || both && i > 0 {
			continue
		}
		l := newLogger(t, s.options)
		for j, name := range []string{"stdout", "stderr"} {
			if j != i && !both {
				continue
			}
			if l.pipes[j], logs[j], err = s.loggerPipe(name, blocking); err != nil {
				l.closePipes()
				return logs, err
			}
		}
		if err := l.start(ctx); err != nil {
			return logs, err
		}
		s.loggers = append(s.loggers, l)
	}
	return logs, nil
}

// loggerPipe is a pipe between a logger and either the process or the shim.
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

// openTerminal opens the client's ends for a terminal and the socket by which
// it will come. log is a logger's, and taken.
func (s *Streams) openTerminal(stdin, stdout target, log **os.File) (err error) {
	if s.coming, err = s.newRelay("stdout", stdout, log); err != nil {
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

// openOutput returns the process's end of stdout or stderr. log is a logger's,
// and taken.
func (s *Streams) openOutput(name string, t target, log **os.File) (childs *os.File, how string, err error) {
	blocks := s.options.Logs.blocks()
	switch {
	case t.kind == none && !(s.options.Listen && name == "stderr"):
		childs, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return childs, "", err
	case t.logger() && blocks:
		childs, *log = *log, nil
		return childs, "", nil
	case t.kind == fifo && blocks && s.direct() && !(s.options.Apart && name == "stderr"):
		n, err := s.holdFIFO(name, t)
		if err != nil {
			return nil, "", err
		}
		defer n.close()
		childs, err = n.writer(true)
		return childs, "direct", err
	case t.kind == fifo && blocks:
		sink, err := s.openFIFO(name, t)
		if err != nil {
			return nil, "", err
		}
		ours, childs, err := pipeFromChild(name, s.options)
		if err != nil {
			sink.close()
			return nil, "", err
		}
		s.outputs = append(s.outputs, newSplicer(name, endOf(ours), sink, s.options.Log).pump)
		return childs, "spliced", nil
	}
	r, err := s.newRelay(name, t, log)
	if err != nil {
		return nil, "", err
	}
	ours, childs, err := pipeFromChild(name, s.options)
	if err != nil {
		r.close()
		return nil, "", err
	}
	if err := r.from(pipeSource{endOf(ours)}); err != nil {
		r.close()
		return childs, "", err
	}
	s.outputs = append(s.outputs, r.pump)
	return childs, "copied", nil
}

// newRelay makes what passes a stream on through the shim; see relay.from. log is
// a logger's, and taken.
func (s *Streams) newRelay(name string, t target, log **os.File) (_ *relay, err error) {
	var to sink
	var kept *ring
	defer func() {
		if err != nil && to != nil {
			to.close()
		}
		if err != nil && kept != nil {
			kept.store.Close()
		}
	}()
	if to, err = s.openSink(name, t, log); err != nil {
		return nil, err
	}
	logs := s.options.Logs
	switch {
	case t.kind == none:
	case t.kind == file && logs.blocks():
		kept = newRing(memory{}, keptOnFailure)
	default:
		if kept, err = logs.ring(s.options.Dir); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	r, err := newRelay(name, to, kept, s.options.Log)
	if err != nil {
		return nil, err
	}
	r.encoder = newEncoder(t.format, name)
	return r, nil
}

// openSink opens where the shim itself writes output to.
func (s *Streams) openSink(name string, t target, log **os.File) (sink, error) {
	switch t.kind {
	case fifo:
		e, err := s.openFIFO(name, t)
		if err != nil {
			return nil, err
		}
		return pipeSink{e}, nil
	case file:
		if s.file != nil && s.file.path == t.path {
			return fileSink{s.file.share()}, nil
		}
		f, err := openLogFile(name, t.path, t.rotation)
		if err != nil {
			return nil, err
		}
		s.file = f
		return fileSink{f}, nil
	case binary, binaryV2:
		w := *log
		*log = nil
		return pipeSink{endOf(w)}, nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return pipeSink{endOf(null)}, nil
}

// openFIFO opens a client's FIFO to be written to by the shim.
func (s *Streams) openFIFO(name string, t target) (*end, error) {
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
}

// holdFIFO holds a read end of a client's FIFO. Where the process waits for its
// client, it makes that as large as the host allows: the fewer times it waits, the
// less each byte costs both ends. Who is told the exit of an init process has read
// it; of an exec's FIFO less would be lost if its client does not read in time.
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
	if waits := s.options.Logs.Policy == "" || s.options.Logs.Policy == Block; waits && !s.options.DrainFirst {
		grow(int(hold.Fd()))
	}
	s.holds = append(s.holds, hold)
	return n, nil
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
