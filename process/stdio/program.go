package stdio

// This file is one run of a logging program. What it is given is containerd's
// contract, for which there is a library for its authors
// (core/runtime/v2/logging): descriptor 3 is stdout, 4 is stderr, 5 says that the
// logger is ready, CONTAINER_ID and CONTAINER_NAMESPACE are the environment.

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

// maxWords bounds what is kept of a logger's stderr.
const maxWords = 4 << 10

// program is one run of a logger.
type program struct {
	target  target
	limit   time.Duration // to get ready
	command *child.Command
	// said is its stderr, heard closed when nothing reads that.
	said  *os.File
	heard chan struct{}
	words words
}

// startProgram runs a logger that reads these pipes, and waits until it is ready.
// When that fails it has ended.
func startProgram(ctx context.Context, t target, o Options, pipes [2]*os.File) (*program, error) {
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	defer ready.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	defer null.Close()
	p := &program{target: t, limit: o.Ready}
	cmd := exec.Command(t.path, t.args...)
	cmd.Env = []string{"CONTAINER_ID=" + o.ContainerID, "CONTAINER_NAMESPACE=" + o.Namespace}
	said, stderr, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return nil, fmt.Errorf("start logger %s: %w", t.path, err)
	}
	cmd.Stderr = stderr
	cmd.ExtraFiles = []*os.File{pipes[0], pipes[1], theirs}
	for i, pipe := range pipes {
		if pipe == nil {
			cmd.ExtraFiles[i] = null
		}
	}
	p.command, err = child.Spawn(cmd)
	theirs.Close()
	stderr.Close()
	p.said = said
	if err != nil {
		said.Close()
		return nil, fmt.Errorf("start logger %s: %w: %w", t.path, err, class(err))
	}
	p.listen()
	if err := p.awaitReady(ctx, ready); err != nil {
		return nil, err
	}
	return p, nil
}

// listen begins to hear what the program says. It ends with the program, or by a
// deadline on said.
func (p *program) listen() {
	heard := make(chan struct{})
	p.heard = heard
	go func() {
		defer close(heard)
		io.Copy(&p.words, p.said)
	}()
}

// outputGrace is how long the last words of a program may take that has ended: a
// descendant may hold its stderr open.
const outputGrace = 2 * time.Second

// ended waits for the end of the program and for its last words, or until held is
// closed, when it returns false. state is nil if it cannot be known.
func (p *program) ended(held <-chan struct{}) (state *os.ProcessState, ended bool) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan struct{})
	go func() {
		select {
		case <-held:
		case <-stop:
		}
		cancel()
	}()
	defer close(stop)
	state, err := p.command.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, false
	}
	p.said.SetReadDeadline(time.Now().Add(outputGrace))
	select {
	case <-p.heard:
	case <-held:
		return nil, false
	}
	p.said.Close()
	return state, true
}

func (p *program) awaitReady(ctx context.Context, ready *os.File) error {
	limited, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	stop := context.AfterFunc(limited, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var word [1]byte
	n, err := ready.Read(word[:])
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return p.failure("is not ready yet", context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p.failure(fmt.Sprintf("is not ready after %s", p.limit), errdefs.ErrUnavailable)
	case n == 1:
		return nil
	case errors.Is(err, io.EOF) && p.target.kind == binary:
		// Ready, unless that was its end.
		if p.dead(limited) {
			return p.failure("ended before it was ready", errdefs.ErrUnavailable)
		}
		return nil
	case errors.Is(err, io.EOF):
		return p.failure("closed its ready descriptor without a word", errdefs.ErrUnavailable)
	}
	return p.failure("cannot be heard", err)
}

// dead tells whether the end of the ready descriptor was that of the logger,
// and no good one. The kernel closes a process's files a while before its end
// can be waited for.
func (p *program) dead(ctx context.Context) bool {
	if !ending(p.command.PID()) {
		return false
	}
	state, err := p.command.Wait(ctx)
	return err == nil && !state.Success()
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

func (p *program) failure(what string, class error) error {
	p.command.Signal(unix.SIGKILL)
	p.ended(nil) // until all that it had to say has come
	if words := p.words.String(); words != "" {
		return fmt.Errorf("logger %s %s: %s: %w", p.target.path, what, words, class)
	}
	return fmt.Errorf("logger %s %s: %w", p.target.path, what, class)
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
