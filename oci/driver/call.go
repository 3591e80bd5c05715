package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/go-runc"
)

// This file is one call to the OCI runtime from its beginning to its end: its
// log, its time limit, the pid it tells, and the error that it becomes.

// call is one run of the OCI runtime, with a log of its own: a shared one
// could show another call's error and grows with every exec.
type call struct {
	runtime   runc.Runc
	operation string
	container string
	began     time.Time
	env       []string
	limit     time.Duration
	ctx       context.Context
	cancel    context.CancelFunc
	said      func() string // as in Streams
	// criu is what it has said of why a checkpoint or restore failed.
	criu string
}

func (r *Runtime) begin(ctx context.Context, operation, id string, limit time.Duration) *call {
	c := &call{operation: operation, container: id, began: time.Now(), limit: limit}
	number := underWay.add(c)
	if end, ok := ctx.Deadline(); ok {
		c.limit = min(limit, time.Until(end))
	}
	c.ctx, c.cancel = context.WithTimeout(runc.WithExtraEnv(ctx, r.options.Env...), limit)
	c.env = r.options.Env
	c.runtime = runc.Runc{
		Command:       r.binary(),
		Root:          r.root(),
		Log:           r.bundle.Path(fmt.Sprintf("log-%s-%d-%d.json", operation, os.Getpid(), number)),
		LogFormat:     runc.JSON,
		SystemdCgroup: r.options.SystemdCgroup,
		ExtraArgs:     r.options.Args,
	}
	switch r.options.LogFormat {
	case oci.TextLog:
		c.runtime.LogFormat = runc.Text
	case oci.NoLog:
		c.runtime.Log, c.runtime.LogFormat = "", ""
		return c
	}
	// There is one already if a shim of the same pid was killed; and in a
	// bundle that is gone (containerd removes those it cannot load) there can
	// be none: then the runtime says on stderr what it has to say.
	if err := os.Remove(c.runtime.Log); err != nil {
		if _, err := os.Lstat(string(r.bundle)); err != nil {
			c.runtime.Log, c.runtime.LogFormat = "", ""
		}
	}
	return c
}

// launch makes a call that starts a process of the container, and returns the
// pid that the runtime has written to pidFile; with an error too, when it has
// written one before it failed. A call that fails leaves no file, unless it was
// killed: then the file names what may be left to remove.
func (c *call) launch(pidFile string, call func(pidFile string) error) (pid int, err error) {
	os.Remove(pidFile)
	if err := call(pidFile); err != nil {
		pid, _ = readPid(pidFile)
		if c.ctx.Err() == nil {
			os.Remove(pidFile)
		}
		return pid, err
	}
	return readPid(pidFile)
}

// end removes the call's log and makes its error one that tells the user what
// the runtime said.
func (c *call) end(err *error) {
	defer underWay.remove(c)
	if c.runtime.Log != "" {
		defer os.Remove(c.runtime.Log)
	}
	defer c.cancel()
	if *err == nil {
		return
	}
	failure := &Error{Operation: c.operation, Container: c.container, Err: *err, Message: c.words(*err)}
	failure.Status, _ = exitOf(*err)
	switch c.ctx.Err() {
	case context.DeadlineExceeded:
		failure.Message = fmt.Sprintf("no end within %s, killed", c.limit.Round(time.Millisecond))
		failure.Err = fmt.Errorf("%w: %w", *err, context.DeadlineExceeded)
	case context.Canceled:
		failure.Message = fmt.Sprintf("%v, killed", context.Cause(c.ctx))
		failure.Err = fmt.Errorf("%w: %w", *err, context.Cause(c.ctx))
	}
	if NotRun(*err) {
		failure.Err = fmt.Errorf("%w: %w", *err, errdefs.ErrFailedPrecondition)
	}
	if c.criu != "" {
		failure.Message += ": " + c.criu
	}
	*err = failure
}

// NotRun tells whether the runtime could not be run at all: it is not there, or
// is no program. Then it is the host that is not fit, and nothing was done.
//
// go-runc has the error of os/exec in most calls as text only.
func NotRun(err error) bool {
	if failure := (*Error)(nil); errors.As(err, &failure) {
		err = failure.Err
	}
	return strings.HasPrefix(err.Error(), "exec: ") || strings.HasPrefix(err.Error(), "fork/exec ")
}

// words are the runtime's own: the last error in its log, else its output, else
// the last line of a log that is text, else why it could not be run.
func (c *call) words(err error) string {
	status, output := exitOf(err)
	text := ""
	if status != 0 {
		var message string
		if message, text = lastLogError(c.runtime.Log); message != "" {
			return message
		}
	}
	if output == "" && c.said != nil {
		output = strings.TrimSpace(c.said())
	}
	if output != "" {
		return output
	}
	if text != "" {
		return text
	}
	if status != 0 && c.said != nil {
		return fmt.Sprintf("it ended with exit status %d; it wrote no log, and what it wrote to stderr is in the container's output", status)
	}
	if NotRun(err) {
		return strings.TrimSuffix(err.Error(), ": <nil>") // go-runc's word for no output
	}
	return strings.TrimRight(err.Error(), ": \n")
}

// unknown tells whether the runtime has failed because it has no such container.
// runc and youki say so; crun says that there is no file where its state would
// be.
func (c *call) unknown(err error) bool {
	words := c.words(err)
	return strings.Contains(words, "does not exist") ||
		strings.Contains(words, filepath.Join(c.runtime.Root, c.container)) && strings.HasSuffix(words, "No such file or directory")
}

// exitOf tells with what status the runtime ended and what it has written to
// its output, as far as that was not the container's. go-runc has both in the
// text of its error, and only there.
func exitOf(err error) (status int, output string) {
	const before = " did not terminate successfully: exit status "
	_, after, ok := strings.Cut(err.Error(), before)
	if !ok {
		return 0, ""
	}
	digits, output, _ := strings.Cut(after, ":")
	if status, err = strconv.Atoi(digits); err != nil {
		return 0, ""
	}
	return status, strings.TrimSpace(output)
}

// Error is a failed call to the OCI runtime.
type Error struct {
	// Operation is the runtime's command: create, start, exec, …
	Operation string
	Container string
	// Message is what the runtime said, unchanged; clients derive exit codes
	// from its words.
	Message string
	// Status is the runtime's exit status, 128 plus the signal if one ended
	// it, or 0 if it was not run or has succeeded.
	Status int
	Err    error
}

func (e *Error) Error() string {
	text := "OCI runtime " + e.Operation + " failed: " + e.Message
	if e.Status != 0 {
		return fmt.Sprintf("%s (container %s, exit status %d)", text, e.Container, e.Status)
	}
	return fmt.Sprintf("%s (container %s)", text, e.Container)
}

func (e *Error) Unwrap() error { return e.Err }

// maxLog bounds how much of a log is read, from its end.
const maxLog = 64 << 10

// lastLogError returns the message of the last error in a runtime's JSON log,
// or nothing. runc and crun write {"level":"error","msg":"…"}, youki writes
// {"level":"ERROR","message":"…"}. Where there is no JSON at all, it returns
// the last line of the text that there is instead.
func lastLogError(path string) (message, text string) {
	data, err := oci.ReadTail(path, maxLog)
	if err != nil {
		return "", ""
	}
	lines := strings.Split(string(data), "\n")
	isJSON := false
	for i := len(lines) - 1; i >= 0; i-- {
		var line struct{ Level, Msg, Message string }
		if json.Unmarshal([]byte(lines[i]), &line) != nil {
			if text == "" {
				text = strings.TrimSpace(lines[i])
			}
			continue
		}
		isJSON = true
		if strings.EqualFold(line.Level, "error") || strings.EqualFold(line.Level, "fatal") {
			return strings.TrimSpace(line.Msg + line.Message), ""
		}
	}
	if isJSON {
		text = ""
	}
	return "", text[:min(len(text), maxLine)]
}

// maxLine bounds what is told of a log that is text.
const maxLine = 2 << 10

func readPid(path string) (int, error) {
	data, err := oci.ReadRegular(path, 32)
	if err != nil {
		return 0, fmt.Errorf("the runtime told no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("the runtime told no pid: %s holds %q", path, data)
	}
	return pid, nil
}
