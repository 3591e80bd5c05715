package stdio

// This file runs logging programs (the schemes binary and binary-v2). What they
// are given is containerd's contract, for which there is a library for their
// authors (core/runtime/v2/logging): descriptor 3 is stdout, 4 is stderr, 5
// says that the logger is ready, CONTAINER_ID and CONTAINER_NAMESPACE are the
// environment.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// defaultReady bounds the wait for a logger to get ready.
	defaultReady = 10 * time.Second
	// defaultGrace is what a logger gets to end after its streams' end, and
	// again after SIGTERM.
	defaultGrace = 10 * time.Second
	// maxWords bounds what is kept of a logger's stderr.
	maxWords = 4 << 10
)

// logger is one logging program.
type logger struct {
	target  target
	options Options
	command *child.Command
	words   words
	ended   chan struct{} // closed when it was reaped

	mu sync.Mutex // guards what follows, once the logger runs
	// pipes are the read ends of stdout and stderr, nil for a stream that is
	// not its. The shim holds them too, until the end of the output: a logger
	// that crashes is not the container's SIGPIPE.
	pipes [2]*os.File
	over  bool // it is the end of the output
	// rest throws away what the logger has not lived to read.
	rest []*pump
}

// start runs the program and waits until it is ready.
func (l *logger) start(ctx context.Context) error {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start logger %s: %w", l.target.path, err)
	}
	defer ready.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		theirs.Close()
		return fmt.Errorf("start logger %s: %w", l.target.path, err)
	}
	defer null.Close()
	cmd := exec.Command(l.target.path, l.target.args...)
	cmd.Env = []string{"CONTAINER_ID=" + l.options.ContainerID, "CONTAINER_NAMESPACE=" + l.options.Namespace}
	cmd.Stderr = &l.words
	cmd.ExtraFiles = []*os.File{l.pipes[0], l.pipes[1], theirs}
	for i, pipe := range l.pipes {
		if pipe == nil {
			cmd.ExtraFiles[i] = null
		}
	}
	l.command, err = child.Spawn(cmd)
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start logger %s: %w: %w", l.target.path, err, class(err))
	}
	l.ended = make(chan struct{})
	go l.watch()
	return l.awaitReady(ctx, ready)
}

// watch reaps the logger; it ends with it.
func (l *logger) watch() {
	state, err := l.command.Wait(context.Background())
	if err == nil && !state.Success() {
		l.options.Log("logger %s: %s %s", l.target.path, state, l.words.String())
	}
	close(l.ended)
	l.discard()
}

// discard lets the output of a logger that has ended before it go nowhere: a
// full pipe would stop the container. It is undone by endOfOutput.
func (l *logger) discard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	for i, pipe := range l.pipes {
		if pipe == nil {
			continue
		}
		// As a description of its own, for the other one is blocking.
		name := "/proc/self/fd/" + strconv.Itoa(int(pipe.Fd()))
		reader, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			l.options.Log("logger %s has ended and its output is not read: %v", l.target.path, err)
			continue
		}
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			reader.Close()
			l.options.Log("logger %s has ended and its output is not read: %v", l.target.path, err)
			continue
		}
		p := newSplicer("rest of the log", endOf(reader), endOf(null), l.options.Log)
		p.start()
		l.rest = append(l.rest, p)
		closeFile(&l.pipes[i])
	}
}

func (l *logger) awaitReady(ctx context.Context, ready *os.File) error {
	limited, cancel := context.WithTimeout(ctx, l.options.Ready)
	defer cancel()
	stop := context.AfterFunc(limited, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var word [1]byte
	n, err := ready.Read(word[:])
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return l.failure("is not ready yet", context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return l.failure(fmt.Sprintf("is not ready after %s", l.options.Ready), errdefs.ErrUnavailable)
	case n == 1:
		return nil
	case errors.Is(err, io.EOF) && l.target.kind == binary:
		// Ready, unless that was its end.
		if l.dead(limited) {
			return l.failure("ended before it was ready", errdefs.ErrUnavailable)
		}
		return nil
	case errors.Is(err, io.EOF):
		return l.failure("closed its ready descriptor without a word", errdefs.ErrUnavailable)
	}
	return l.failure("cannot be heard", err)
}

// dead tells whether the end of the ready descriptor was that of the logger,
// and no good one. The kernel closes a process's files a while before its end
// can be waited for.
func (l *logger) dead(ctx context.Context) bool {
	if !ending(l.pid()) {
		return false
	}
	select {
	case <-l.ended:
		return !l.command.Success()
	case <-ctx.Done():
		return false
	}
}

// ending tells whether a process has begun to end, or has ended.
func ending(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	// Field 9 of proc_pid_stat(5). What comes before the third may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const flags, exiting = 9 - 3, 0x4 // PF_EXITING, include/linux/sched.h
	if len(fields) <= flags {
		return false
	}
	set, err := strconv.ParseUint(string(fields[flags]), 10, 64)
	return err == nil && set&exiting != 0
}

func (l *logger) failure(what string, class error) error {
	select {
	case <-l.ended: // all that it had to say has come
	default:
		l.command.Signal(unix.SIGKILL)
		<-l.ended
	}
	if words := l.words.String(); words != "" {
		return fmt.Errorf("logger %s %s: %s: %w", l.target.path, what, words, class)
	}
	return fmt.Errorf("logger %s %s: %w", l.target.path, what, class)
}

func (l *logger) pid() int { return l.command.PID() }

// endOfOutput gives up the shim's hold on the pipes.
func (l *logger) endOfOutput() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	closeFile(&l.pipes[0])
	closeFile(&l.pipes[1])
	for _, p := range l.rest {
		p.stop()
	}
	l.rest = nil
}

// finish waits for the logger's end and, when it does not come, brings it
// about. It is bounded.
func (l *logger) finish() {
	for _, signal := range []unix.Signal{0, unix.SIGTERM, unix.SIGKILL} {
		if signal != 0 {
			l.command.Signal(signal)
		}
		timer := time.NewTimer(l.options.Grace)
		select {
		case <-l.ended:
			timer.Stop()
			return
		case <-timer.C:
		}
	}
	l.options.Log("logger %s (process %d) does not end", l.target.path, l.pid())
}

// words keeps the last of what a program writes to its stderr.
type words struct {
	mu   sync.Mutex
	text []byte
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	if over := len(w.text) - maxWords; over > 0 {
		w.text = append(w.text[:0], w.text[over:]...)
	}
	return len(b), nil
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.text))
}
