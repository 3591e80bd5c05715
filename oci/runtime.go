package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultBinary is the OCI runtime when nothing names another.
const DefaultBinary = "runc"

// Limits bound the calls to the OCI runtime, so that one that hangs is an
// error in the end and not a stuck container.
type Limits struct {
	// Launch bounds create, start, exec and restore, hooks included.
	Launch time.Duration
	// Checkpoint bounds checkpoint.
	Checkpoint time.Duration
	// Control bounds everything else.
	Control time.Duration
}

// DefaultLimits leave room for slow hooks and loaded hosts.
var DefaultLimits = Limits{Launch: 5 * time.Minute, Checkpoint: 10 * time.Minute, Control: time.Minute}

// Runtime calls an OCI runtime for the container of one bundle. It keeps no
// state of its own, holds no lock, and is safe for concurrent use. The
// context of a call is the call's life: when it ends, the runtime is killed.
type Runtime struct {
	Limits    Limits
	bundle    Bundle
	namespace string
	options   Options
}

// NewRuntime returns the runtime that options name.
func NewRuntime(bundle Bundle, namespace string, options Options) *Runtime {
	return &Runtime{Limits: DefaultLimits, bundle: bundle, namespace: namespace, options: options}
}

// Streams are what a container process gets as its standard IO. All three
// are set unless there is a console.
type Streams struct {
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket is where the runtime sends the terminal to.
	ConsoleSocket string
}

// Create creates the container: its init process exists and waits for Start.
// The runtime's descendants are the shim's children from then on; the caller
// has announced the launch (child.Launching) and adopts the returned pid.
func (r *Runtime) Create(ctx context.Context, id string, s Streams) (pid int, err error) {
	c := r.begin(ctx, "create", id, r.Limits.Launch)
	defer c.end(&err)
	pidFile := r.bundle.InitPidFile()
	os.Remove(pidFile)
	opts := &runc.CreateOpts{
		IO:           s.io(),
		PidFile:      pidFile,
		NoPivot:      r.options.NoPivotRoot,
		NoNewKeyring: r.options.NoNewKeyring,
	}
	if s.ConsoleSocket != "" {
		opts.ConsoleSocket = socketPath(s.ConsoleSocket)
	}
	if err := c.runtime.Create(c.ctx, id, string(r.bundle), opts); err != nil {
		return 0, err
	}
	return readPid(pidFile)
}

// Start lets the created init process run the container's program.
func (r *Runtime) Start(ctx context.Context, id string) (err error) {
	c := r.begin(ctx, "start", id, r.Limits.Launch)
	defer c.end(&err)
	return c.runtime.Start(c.ctx, id)
}

// Exec starts a process in the container; as with Create, the caller has
// announced the launch and adopts the pid.
func (r *Runtime) Exec(ctx context.Context, id, execID string, process specs.Process, s Streams) (pid int, err error) {
	c := r.begin(ctx, "exec", id, r.Limits.Launch)
	defer c.end(&err)
	pidFile := r.bundle.Path("exec-" + execID + ".pid")
	defer os.Remove(pidFile)
	opts := &runc.ExecOpts{IO: s.io(), LogFile: c.runtime.Log, PidFile: pidFile, Detach: true}
	if s.ConsoleSocket != "" {
		opts.ConsoleSocket = socketPath(s.ConsoleSocket)
	}
	if err := c.runtime.Exec(c.ctx, id, process, opts); err != nil {
		return 0, err
	}
	return readPid(pidFile)
}

// Delete removes what the runtime keeps of the container. A container that it
// does not know (any more) is no error. force kills what still runs.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) (err error) {
	c := r.begin(ctx, "delete", id, r.Limits.Control)
	defer c.end(&err)
	err = c.runtime.Delete(c.ctx, id, &runc.DeleteOpts{Force: force})
	if err != nil && strings.Contains(c.words(err), "does not exist") {
		return nil
	}
	return err
}

// Pause freezes the container's processes.
func (r *Runtime) Pause(ctx context.Context, id string) (err error) {
	c := r.begin(ctx, "pause", id, r.Limits.Control)
	defer c.end(&err)
	return c.runtime.Pause(c.ctx, id)
}

// Resume undoes Pause.
func (r *Runtime) Resume(ctx context.Context, id string) (err error) {
	c := r.begin(ctx, "resume", id, r.Limits.Control)
	defer c.end(&err)
	return c.runtime.Resume(c.ctx, id)
}

// Update changes the limits of the container's cgroup.
func (r *Runtime) Update(ctx context.Context, id string, resources *specs.LinuxResources) (err error) {
	c := r.begin(ctx, "update", id, r.Limits.Control)
	defer c.end(&err)
	return c.runtime.Update(c.ctx, id, resources)
}

// LookPath returns the absolute path of the runtime's binary.
func (r *Runtime) LookPath() (string, error) {
	path, err := exec.LookPath(r.binary())
	if err != nil {
		return "", fmt.Errorf("look up OCI runtime %q: %w", r.binary(), err)
	}
	return filepath.Abs(path)
}

// Features returns what the runtime says of itself, the JSON of the runtime
// spec's features document. Runtimes are free not to offer this.
func (r *Runtime) Features(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Limits.Control)
	defer cancel()
	features, err := (&runc.Runc{Command: r.binary()}).Features(ctx)
	if err != nil {
		return nil, fmt.Errorf("features of OCI runtime %s: %w", r.binary(), err)
	}
	return json.Marshal(features)
}

func (r *Runtime) binary() string {
	if r.options.BinaryName != "" {
		return r.options.BinaryName
	}
	return DefaultBinary
}

func (r *Runtime) root() string {
	root := r.options.Root
	if root == "" {
		root = DefaultRoot
	}
	return filepath.Join(root, r.namespace)
}

// call is one run of the OCI runtime, with a log of its own: a shared one
// could show another call's error and grows with every exec.
type call struct {
	runtime   runc.Runc
	operation string
	container string
	limit     time.Duration
	ctx       context.Context
	cancel    context.CancelFunc
}

var calls atomic.Uint64

func (r *Runtime) begin(ctx context.Context, operation, id string, limit time.Duration) *call {
	c := &call{operation: operation, container: id, limit: limit}
	c.ctx, c.cancel = context.WithTimeout(ctx, limit)
	c.runtime = runc.Runc{
		Command:       r.binary(),
		Root:          r.root(),
		Log:           r.bundle.Path("log-" + operation + "-" + strconv.FormatUint(calls.Add(1), 10) + ".json"),
		LogFormat:     runc.JSON,
		SystemdCgroup: r.options.SystemdCgroup,
	}
	return c
}

// end removes the call's log and makes its error one that tells the user what
// the runtime said.
func (c *call) end(err *error) {
	defer os.Remove(c.runtime.Log)
	defer c.cancel()
	if *err == nil {
		return
	}
	failure := &Error{Operation: c.operation, Container: c.container, Err: *err, Message: c.words(*err)}
	if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
		failure.Message = fmt.Sprintf("no end within %s, killed", c.limit)
	}
	*err = failure
}

// words are the runtime's own: the last error in its log, else what the error
// of the call holds (its output, or why it could not be run).
func (c *call) words(err error) string {
	if message := lastLogError(c.runtime.Log); message != "" {
		return message
	}
	return strings.TrimSpace(err.Error())
}

// Error is a failed call to the OCI runtime.
type Error struct {
	// Operation is the runtime's command: create, start, exec, …
	Operation string
	Container string
	// Message is what the runtime said, unchanged; clients derive exit codes
	// from its words.
	Message string
	Err     error
}

func (e *Error) Error() string {
	text := "OCI runtime " + e.Operation + " failed: " + e.Message
	var exit *runc.ExitError
	if errors.As(e.Err, &exit) {
		return fmt.Sprintf("%s (container %s, exit status %d)", text, e.Container, exit.Status)
	}
	return fmt.Sprintf("%s (container %s)", text, e.Container)
}

func (e *Error) Unwrap() error { return e.Err }

// maxLog bounds how much of a runtime's log is read, from its end.
const maxLog = 64 << 10

// lastLogError returns the message of the last error line in a runtime's JSON
// log, or nothing.
func lastLogError(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > maxLog {
		f.Seek(-maxLog, io.SeekEnd)
	} else {
		f.Seek(0, io.SeekStart)
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxLog))
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var line struct{ Level, Msg string }
		if json.Unmarshal([]byte(lines[i]), &line) != nil {
			continue
		}
		if line.Level == "error" || line.Level == "fatal" {
			return strings.TrimSpace(line.Msg)
		}
	}
	return ""
}

func readPid(path string) (int, error) {
	data, err := readBounded(path, 32)
	if err != nil {
		return 0, fmt.Errorf("the runtime told no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("the runtime told no pid: %s holds %q", path, data)
	}
	return pid, nil
}

type socketPath string

func (s socketPath) Path() string { return string(s) }

// io makes go-runc start the runtime with the streams; nil when there is a
// console, for then the runtime's own output is kept for error messages.
func (s Streams) io() runc.IO {
	if s.ConsoleSocket != "" {
		return nil
	}
	return files{s}
}

type files struct{ streams Streams }

func (f files) Set(cmd *exec.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f.streams.Stdin, f.streams.Stdout, f.streams.Stderr
}
func (files) Stdin() io.WriteCloser { return nil }
func (files) Stdout() io.ReadCloser { return nil }
func (files) Stderr() io.ReadCloser { return nil }
func (files) Close() error          { return nil }

func init() { runc.Monitor = launcher{} }

// launcher starts the OCI runtime for go-runc. It waits through the
// netpoller, where go-runc's own would block a thread for each call and race
// with the reaping of orphans.
type launcher struct{}

func (launcher) Start(cmd *exec.Cmd) (chan runc.Exit, error) {
	command, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	exits := make(chan runc.Exit, 1)
	go func() {
		exit := runc.Exit{Pid: cmd.Process.Pid, Status: 255}
		if state, err := command.Wait(context.Background()); err == nil && state != nil && state.ExitCode() >= 0 {
			exit.Status = state.ExitCode()
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
