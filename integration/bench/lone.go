package main

// A shim without containerd: this program plays its part. So every process is its
// child, and what it uses is known exactly.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatrun/cleat/integration/daemon"
)

// lone is the shim of one container.
type lone struct {
	b       *bench
	c       contender
	id      string
	bundle  string
	events  string // address that takes events
	options *anypb.Any
	log     *os.File
	shim    *daemon.Shim
	pid     int // of the daemon
	ended   bool
}

// newLone makes a bundle and starts its shim. within is a command that is run with
// the shim's, and runs it.
func (b *bench) newLone(c contender, sink *daemon.Sink, args []string, within ...string) (l *lone, started time.Duration, err error) {
	l = &lone{b: b, c: c, id: b.name("lone"), events: sink.Address()}
	if l.bundle, err = b.bundle(l.id, args...); err != nil {
		return nil, 0, err
	}
	options := &runcoptions.Options{BinaryName: c.oci}
	value, err := proto.Marshal(options)
	if err != nil {
		return nil, 0, err
	}
	l.options = &anypb.Any{TypeUrl: string(options.ProtoReflect().Descriptor().FullName()), Value: value}
	if err := l.openLog(); err != nil {
		return nil, 0, err
	}
	if started, err = l.start(within); err != nil {
		return nil, 0, errors.Join(err, l.log.Close())
	}
	answer, err := l.shim.Connect(b.ctx, &task.ConnectRequest{ID: l.id})
	if err != nil {
		return nil, 0, fmt.Errorf("connect: %w", err)
	}
	l.pid = int(answer.ShimPid)
	return l, started, nil
}

// openLog makes the FIFO into which shims log, and reads it.
func (l *lone) openLog() error {
	path := filepath.Join(l.bundle, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return err
	}
	var err error
	if l.log, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		return err
	}
	go func() { // ends when the file is closed
		for buf := make([]byte, 4096); ; {
			if _, err := l.log.Read(buf); err != nil {
				return
			}
		}
	}()
	return nil
}

// action is one of the shim's short-lived actions as containerd runs it.
func (l *lone) action(ctx context.Context, within []string, name string, more ...string) *exec.Cmd {
	p := l.b.daemon
	args := append(append([]string{}, within...), l.c.shim, "-namespace", p.Namespace, "-address", p.Address(), "-publish-binary", l.b.tools.Containerd, "-id", l.id)
	args = append(append(args, more...), name)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = l.bundle
	cmd.Env = append(p.Environ(l.b.tools.Dir), "TTRPC_ADDRESS="+l.events, "GRPC_ADDRESS="+p.Address(), "NAMESPACE="+p.Namespace, "MAX_SHIM_VERSION=2", "GOMAXPROCS=2")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// start runs the action `start` and tells its CPU time.
func (l *lone) start(within []string) (time.Duration, error) {
	p := l.b.daemon
	params := &bootapi.BootstrapParams{
		InstanceID: l.id, Namespace: p.Namespace, ContainerdVersion: "v2.4.2",
		ContainerdTtrpcAddress: l.events, ContainerdGrpcAddress: p.Address(),
		ContainerdBinary: l.b.tools.Containerd, SocketDir: proto.String(p.Sockets()),
	}
	if err := params.AddExtension(l.options); err != nil {
		return 0, err
	}
	input, err := proto.Marshal(params)
	if err != nil {
		return 0, err
	}
	cmd := l.action(l.b.ctx, within, "start")
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: start: %w: %s", l.c.name, err, stderr.String())
	}
	answer := &bootapi.BootstrapResult{}
	if err := proto.Unmarshal(out, answer); err != nil {
		return 0, fmt.Errorf("%s: read the answer of start: %w", l.c.name, err)
	}
	if l.shim, err = daemon.Dial(answer.Address); err != nil {
		return 0, err
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// run creates and starts the container.
func (l *lone) run() error {
	if _, err := l.shim.Create(l.b.ctx, &task.CreateTaskRequest{ID: l.id, Bundle: l.bundle, Options: l.options}); err != nil {
		return fmt.Errorf("%s: create: %w", l.c.name, err)
	}
	if _, err := l.shim.Start(l.b.ctx, &task.StartRequest{ID: l.id}); err != nil {
		return fmt.Errorf("%s: start: %w", l.c.name, err)
	}
	return nil
}

// finish waits for the end of the container and lets the shim go.
func (l *lone) finish() error {
	if _, err := l.shim.Wait(l.b.ctx, &task.WaitRequest{ID: l.id}); err != nil {
		return fmt.Errorf("%s: wait: %w", l.c.name, err)
	}
	if _, err := l.shim.Delete(l.b.ctx, &task.DeleteRequest{ID: l.id}); err != nil {
		return fmt.Errorf("%s: delete: %w", l.c.name, err)
	}
	l.shim.Shutdown(l.b.ctx, &task.ShutdownRequest{ID: l.id}) // stock ends without an answer
	return nil
}

// gone waits for the end of the daemon. When ctx ends, it kills it.
func (l *lone) gone(ctx context.Context) (end, error) {
	l.ended = true
	return awaitEnd(ctx, l.pid)
}

// remove runs the action `delete`, which removes whatever there is, and tells the
// CPU time of it and of what it has run. It kills a daemon that is there yet.
func (l *lone) remove() (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.b.ctx), 30*time.Second)
	defer cancel()
	if !l.ended {
		now, end := context.WithCancel(ctx)
		end()
		l.gone(now) // says that it was told to hurry
	}
	l.shim.Close()
	cmd := l.action(ctx, nil, "delete", "-bundle", l.bundle)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if _, err := cmd.Output(); err != nil {
		return 0, fmt.Errorf("%s: delete: %w: %s", l.c.name, err, stderr.String())
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return used, errors.Join(l.log.Close(), os.RemoveAll(l.bundle))
}

// takeEvents listens for the events of lone shims.
func (b *bench) takeEvents() (*daemon.Sink, error) {
	sink := daemon.NewSink(b.daemon.Path(b.name("events")))
	return sink, sink.Listen()
}
