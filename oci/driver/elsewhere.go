package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/go-runc"
)

// This file asks the runtime what the host is asked as a rule, where a
// container's processes are not on this host: how they end, who they are, what
// they use; and it has the runtime send signals. docs/custom-runtime.md says
// what a runtime has to answer.

// Kill has the runtime send a signal to the container's init process, or with
// all to all of its processes. With a pid other than 0 it is sent to that one,
// by an option that only runtimes whose processes are elsewhere need to have.
func (r *Runtime) Kill(ctx context.Context, id string, pid int, signal syscall.Signal, all bool) (err error) {
	c := r.begin(ctx, "kill", id, r.Limits.Control)
	defer c.end(&err)
	o := &runc.KillOpts{All: all}
	if pid != 0 {
		o.ExtraArgs = processArgs(pid)
	}
	return c.runtime.Kill(c.ctx, id, int(signal), o)
}

// Finished tells whether a Kill has failed because there is nothing left that
// could be killed, in the words of runc and of crun.
func Finished(err error) bool {
	for _, words := range []string{"process already finished", "not running", "No such process", "does not exist", "container is stopped"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}

// Processes lists the pids in the container as the runtime counts them.
func (r *Runtime) Processes(ctx context.Context, id string) (pids []int, err error) {
	c := r.begin(ctx, "ps", id, r.Limits.Control)
	defer c.end(&err)
	out, err := c.output("ps", "--format", "json", id)
	if err != nil {
		return nil, err
	}
	return pids, c.decode(out, &pids)
}

// Stats is what the runtime says that the container uses.
func (r *Runtime) Stats(ctx context.Context, id string) (stats *runc.Stats, err error) {
	c := r.begin(ctx, "events", id, r.Limits.Control)
	defer c.end(&err)
	out, err := c.output("events", "--stats", id)
	if err != nil {
		return nil, err
	}
	var event runc.Event
	if err := c.decode(out, &event); err != nil {
		return nil, err
	}
	if event.Stats == nil {
		return nil, fmt.Errorf("the runtime tells no statistics: %q", tail(out))
	}
	return event.Stats, nil
}

// Wait returns the exit status of a process of the container when it has ended:
// of the init process for pid 0. It takes as long as the process lives; ctx ends
// it before. The runtime's command wait tells it, as an object with exitStatus,
// or as a number.
func (r *Runtime) Wait(ctx context.Context, id string, pid int) (status int, err error) {
	args := []string{"wait"}
	if pid != 0 {
		args = append(args, processArgs(pid)...)
	}
	c := r.begin(context.WithoutCancel(ctx), "wait", id, forEver)
	underWay.remove(c) // it is no work that is being done
	defer c.end(&err)
	var stdout, stderr bytes.Buffer
	cmd := c.command(ctx, append(args, id)...)
	cmd.Stdout = &boundedWriter{to: &stdout, left: maxOutput}
	cmd.Stderr = &boundedWriter{to: &stderr, left: maxOutput}
	// Not a launch: orphans must be reaped while it goes on.
	command, err := child.Spawn(cmd)
	if err != nil {
		return 0, err
	}
	state, err := command.Wait(context.Background())
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, err
	case !state.Success():
		return 0, ended(cmd, exitStatus(state), stderr.Bytes())
	}
	var told struct{ ExitStatus *int }
	if number, err := strconv.Atoi(strings.TrimSpace(stdout.String())); err == nil {
		return number, nil
	}
	if err := c.decode(stdout.Bytes(), &told); err != nil || told.ExitStatus == nil {
		return 0, fmt.Errorf("the runtime tells no exit status: %q", tail(stdout.Bytes()))
	}
	return *told.ExitStatus, nil
}

// forEver is longer than any container runs.
const forEver = 100 * 365 * 24 * time.Hour

// Stopped asks the runtime whether the container has ended, or is not known to
// it any more.
func (r *Runtime) Stopped(ctx context.Context, id string) (stopped bool, err error) {
	c := r.begin(ctx, "state", id, r.Limits.Control)
	defer c.end(&err)
	out, err := c.output("state", id)
	if err != nil {
		return c.unknown(err), err
	}
	var state struct{ Status string }
	return state.Status == "stopped", c.decode(out, &state)
}

// processArgs name one process of a container.
func processArgs(pid int) []string { return []string{"--pid", strconv.Itoa(pid)} }

// output calls the runtime and returns what it writes to its stdout. An error
// has what it has written to stderr.
func (c *call) output(args ...string) ([]byte, error) {
	cmd := c.command(c.ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &stdout // which the launcher bounds
	cmd.Stderr = &boundedWriter{to: &stderr, left: maxOutput}
	exits, err := runc.Monitor.Start(cmd)
	if err != nil {
		return nil, err
	}
	if status, _ := runc.Monitor.Wait(cmd, exits); status != 0 {
		return nil, ended(cmd, status, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// ended is the error of a command that has failed, in go-runc's words.
func ended(cmd *exec.Cmd, status int, output []byte) error {
	return fmt.Errorf("%s did not terminate successfully: %w: %s", cmd.Args[0], &runc.ExitError{Status: status}, output)
}

// decode reads what the runtime has answered.
func (c *call) decode(answer []byte, into any) error {
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("the runtime's answer is not what was asked for: %q", tail(answer))
	}
	return nil
}

// tail is so much of an answer as fits into an error.
func tail(answer []byte) []byte {
	const most = 200
	return answer[max(0, len(answer)-most):]
}
