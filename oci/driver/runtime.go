// Package driver calls an OCI runtime (runc, crun, …) by way of go-runc: what
// each call is given, how long it may take, and what becomes of its errors.
package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// This file has the calls. How one is made and what becomes of its errors is in
// call.go and launch.go, checkpoints are in checkpoint.go.

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
// context of a call is the call's life: when it ends, the runtime is killed,
// together with the hooks and wrappers in its process group.
type Runtime struct {
	Limits    Limits
	bundle    oci.Bundle
	namespace string
	options   oci.Options
}

// New returns the runtime that options name.
func New(bundle oci.Bundle, namespace string, options oci.Options) *Runtime {
	return &Runtime{Limits: DefaultLimits, bundle: bundle, namespace: namespace, options: options}
}

// Streams are what a container process gets as its standard IO. All three
// are set unless there is a console; one that is not is /dev/null.
type Streams struct {
	Stdin, Stdout, Stderr *os.File
	// ConsoleSocket is where the runtime sends the terminal to.
	ConsoleSocket string
	// Said, which may be nil, takes what the runtime has written to Stderr when it
	// has failed, as far as that can be told.
	Said func() string
}

// Create creates the container: its init process exists and waits for Start.
// The runtime's descendants are the shim's children from then on; the caller
// has announced the launch (child.Launching) and adopts the returned pid.
func (r *Runtime) Create(ctx context.Context, id string, s Streams) (pid int, err error) {
	c := r.begin(ctx, "create", id, r.Limits.Launch)
	c.said = s.Said
	defer c.end(&err)
	return c.launch(r.bundle.InitPidFile(), func(pidFile string) error {
		return c.runtime.Create(c.ctx, id, string(r.bundle), &runc.CreateOpts{
			IO:            s.io(),
			ConsoleSocket: s.console(),
			PidFile:       pidFile,
			NoPivot:       r.options.NoPivotRoot,
			NoNewKeyring:  r.options.NoNewKeyring,
		})
	})
}

// Start lets the created init process run the container's program.
func (r *Runtime) Start(ctx context.Context, id string) (err error) {
	c := r.begin(ctx, "start", id, r.Limits.Launch)
	defer c.end(&err)
	return c.runtime.Start(c.ctx, id)
}

// Exec starts a process in the container; as with Create, the caller has
// announced the launch and adopts the pid. A pid that comes with an error is
// that of a process which the runtime has made before it failed.
func (r *Runtime) Exec(ctx context.Context, id, execID string, process specs.Process, s Streams) (pid int, err error) {
	c := r.begin(ctx, "exec", id, r.Limits.Launch)
	c.said = s.Said
	defer c.end(&err)
	// A process's environment holds secrets. go-runc's own Exec writes it to a
	// file in a shared folder, where it stays if the shim is killed; the
	// bundle is removed with the container.
	spec := "exec-" + execID + ".json"
	data, err := json.Marshal(process)
	if err != nil {
		return 0, err
	}
	if err := r.bundle.Replace(spec, data); err != nil {
		return 0, err
	}
	defer os.Remove(r.bundle.Path(spec))
	pidFile := r.bundle.Path("exec-" + execID + ".pid")
	defer os.Remove(pidFile)
	return c.launch(pidFile, func(pidFile string) error {
		args := []string{"exec", "--process", r.bundle.Path(spec), "--detach", "--pid-file", pidFile}
		if s.ConsoleSocket != "" {
			args = append(args, "--console-socket", s.ConsoleSocket)
		}
		return c.run(s, append(args, id)...)
	})
}

// Delete removes what the runtime keeps of the container. A container that it
// does not know (any more) is no error. force kills what still runs.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) (err error) {
	c := r.begin(ctx, "delete", id, r.Limits.Control)
	defer c.end(&err)
	err = c.runtime.Delete(c.ctx, id, &runc.DeleteOpts{Force: force})
	if err != nil && c.unknown(err) {
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
	ctx = runc.WithExtraEnv(ctx, r.options.Env...)
	features, err := (&runc.Runc{Command: r.binary(), ExtraArgs: r.options.Args}).Features(ctx)
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
		root = oci.DefaultRoot
	}
	return filepath.Join(root, r.namespace)
}
