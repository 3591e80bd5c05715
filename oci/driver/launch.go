package driver

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/go-runc"
)

// This file starts the OCI runtime's process and waits for it.

// maxOutput bounds what is kept of what a runtime writes to its own output.
const maxOutput = 1 << 20

func init() { runc.Monitor = launcher{} }

// launcher starts the OCI runtime for go-runc. It waits through the
// netpoller, where go-runc's own would block a thread for each call and race
// with the reaping of orphans.
type launcher struct{}

func (launcher) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	bound(cmd)
	command, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	exits := make(chan runc.Exit, 1)
	go func() { // ends with the command
		exit := runc.Exit{Pid: command.PID(), Status: 255}
		if state, err := command.Wait(context.Background()); err == nil && state != nil {
			exit.Status = exitStatus(state)
		}
		exit.Timestamp = time.Now()
		exits <- exit
	}()
	return exits, nil
}

// StartLocked is for callers that set PdeathSignal; this package does not.
func (l launcher) StartLocked(cmd *exec.Cmd) (chan runc.Exit, error) { return l.Start(cmd) }

func (launcher) Wait(_ *exec.Cmd, exits chan runc.Exit) (int, error) {
	exit := <-exits
	return exit.Status, nil
}

func exitStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// bound keeps a runtime that does not stop talking from filling the memory:
// go-runc collects all of its output.
func bound(cmd *exec.Cmd) {
	collected, ok := cmd.Stdout.(*bytes.Buffer)
	if !ok {
		return
	}
	writer := &boundedWriter{to: collected, left: maxOutput}
	if cmd.Stderr == cmd.Stdout {
		cmd.Stderr = writer
	}
	cmd.Stdout = writer
}

// boundedWriter takes everything and passes on what comes first.
type boundedWriter struct {
	to   io.Writer
	left int
}

func (w *boundedWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.left)
	w.left -= n
	if n > 0 {
		if _, err := w.to.Write(b[:n]); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// ReadFrom is what os/exec calls with the pipe. Without it, it takes a buffer of
// 32 KiB for every call, and a shim has no collection of garbage in most of its
// life.
func (w *boundedWriter) ReadFrom(r io.Reader) (n int64, err error) {
	var chunk [512]byte
	for {
		read, err := r.Read(chunk[:])
		if read > 0 {
			n += int64(read)
			if _, err := w.Write(chunk[:read]); err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// run calls the runtime with arguments that go-runc has no call for, and fails
// in the same words.
func (c *call) run(s Streams, args ...string) error {
	cmd := c.command(c.ctx, args...)
	var output bytes.Buffer
	if streams := s.io(); streams != nil {
		streams.Set(cmd)
	} else {
		cmd.Stdout, cmd.Stderr = &output, &output
	}
	exits, err := runc.Monitor.Start(cmd)
	if err != nil {
		return err
	}
	if status, _ := runc.Monitor.Wait(cmd, exits); status != 0 {
		return ended(cmd, status, output.Bytes())
	}
	return nil
}

// command is the runtime with its options and environment; ctx is its life.
func (c *call) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.runtime.Command, append(c.flags(), args...)...)
	// runc takes it for its own if it finds it.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") })
	cmd.Env = append(cmd.Env, c.env...)
	return cmd
}

// flags are the runtime's options that come before its command.
func (c *call) flags() []string {
	flags := []string{"--root", c.runtime.Root}
	if c.runtime.Log != "" {
		flags = append(flags, "--log", c.runtime.Log, "--log-format", string(c.runtime.LogFormat))
	}
	if c.runtime.SystemdCgroup {
		flags = append(flags, "--systemd-cgroup")
	}
	return append(flags, c.runtime.ExtraArgs...)
}

// io makes go-runc start the runtime with the streams; nil when there is a
// console, for then the runtime's own output is kept for error messages.
func (s Streams) io() runc.IO {
	if s.ConsoleSocket != "" {
		return nil
	}
	return files{s}
}

// console is where the runtime sends the terminal to, or nil.
func (s Streams) console() runc.ConsoleSocket {
	if s.ConsoleSocket == "" {
		return nil
	}
	return socketPath(s.ConsoleSocket)
}

type socketPath string

func (s socketPath) Path() string { return string(s) }

type files struct{ streams Streams }

// Set leaves out what is missing: a nil *os.File is not a nil io.Writer, and
// the runtime would start with the descriptor closed.
func (f files) Set(cmd *exec.Cmd) {
	if f.streams.Stdin != nil {
		cmd.Stdin = f.streams.Stdin
	}
	if f.streams.Stdout != nil {
		cmd.Stdout = f.streams.Stdout
	}
	if f.streams.Stderr != nil {
		cmd.Stderr = f.streams.Stderr
	}
}

func (files) Stdin() io.WriteCloser { return nil }
func (files) Stdout() io.ReadCloser { return nil }
func (files) Stderr() io.ReadCloser { return nil }
func (files) Close() error          { return nil }
