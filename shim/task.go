package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup/graceperiod"
	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/message"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	"github.com/containerd/errdefs"
)

// joinLimit is how long the shim waits for the Create of a container whose
// `start` was told that it stays. containerd sends it at once.
const joinLimit = 2 * time.Minute

// aloneLimit is how long the shim stays without containers when nobody is
// connected. Tests have less time.
var aloneLimit = 2 * time.Minute

// taskService answers the RPCs of containerd.message.v2.Task and v3.Task, whose
// messages are the same on the wire (runtime/task/v3/shim.proto).
type taskService struct {
	namespace  string
	invokedAs  string
	leader     options.Said // for containers of which no start was run
	containers *containers
	goes       func(oci.Bundle) // is told of the bundle of a container that is gone
	events     *events.Queue
	log        *log
	history    history
	rest       rest
}

func (t *taskService) methods() map[string]ttrpcserver.Handler {
	return map[string]ttrpcserver.Handler{
		"Create":     unary(t.create),
		"Start":      unary(t.start),
		"Exec":       unary(t.exec),
		"State":      unary(t.state),
		"Wait":       unary(t.wait),
		"Kill":       unary(t.kill),
		"Pids":       unary(t.pids),
		"CloseIO":    unary(t.closeIO),
		"ResizePty":  unary(t.resizePty),
		"Stats":      unary(t.stats),
		"Delete":     unary(t.delete),
		"Connect":    unary(t.connect),
		"Checkpoint": unary(t.checkpoint),
		"Shutdown":   unary(t.shutdown),
		"Pause":      unary(t.pause),
		"Resume":     unary(t.resume),
		"Update":     unary(t.update),
	}
}

// pace tells how long a method takes, of all services.
func pace(_, method string) ttrpcserver.Pace {
	switch method {
	case "Create", "Start", "Delete", "Pause", "Resume", "Update", "Checkpoint":
		return ttrpcserver.Slow // they call the OCI runtime
	case "Wait", control.MethodUpgrade, control.MethodTry:
		return ttrpcserver.Waiting
	}
	return ttrpcserver.Fast
}

// empty answers RPCs that return nothing.
var empty message.Message

// unary makes a handler of a function on messages.
func unary[M any, Request interface {
	*M
	message.Message
}](f func(context.Context, Request) (message.Message, error)) ttrpcserver.Handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		request := Request(new(M))
		if err := request.Read(payload); err != nil {
			return nil, fmt.Errorf("read request: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		response, err := f(ctx, request)
		if err != nil || response == nil {
			return nil, err
		}
		return response.Append(nil), nil
	}
}

func (t *taskService) create(ctx context.Context, r *message.CreateTaskRequest) (message.Message, error) {
	if err := bootstrap.ValidName(r.ID); err != nil {
		return nil, fmt.Errorf("create container: id %w", err)
	}
	if !filepath.IsAbs(r.Bundle) {
		return nil, fmt.Errorf("create container %s: bundle %q is not an absolute path: %w", r.ID, r.Bundle, errdefs.ErrInvalidArgument)
	}
	settings, err := t.settings(ctx, oci.Bundle(r.Bundle), optionsMessage(r.Options))
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w", r.ID, err)
	}
	for {
		container, fresh, err := t.containers.claim(r.ID, func() *process.Container {
			var c *process.Container
			c = process.New(t.config(process.Config{
				ID:         r.ID,
				Namespace:  t.namespace,
				Bundle:     oci.Bundle(r.Bundle),
				Options:    settings.Runtime,
				Rootfs:     mounts(r.Rootfs),
				Stdio:      stdio.Spec{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
				Output:     settings.Stdio.String(),
				Logs:       logs(settings.Logs),
				Checkpoint: r.Checkpoint,
				Limits:     limits(settings.Limits),
				Allowed:    annotations(settings.Annotations),
			}, func() { t.gone(c) }))
			return c
		})
		if err != nil {
			return nil, err
		}
		err = container.Create(ctx)
		if !fresh && errdefs.IsNotFound(err) {
			continue // it is gone, or its own creation has failed: not ours
		}
		if err != nil {
			return nil, err
		}
		return &message.CreateTaskResponse{Pid: uint32(container.Init().State().PID)}, nil
	}
}

// config adds to that of a container what it has to do with the service.
func (t *taskService) config(c process.Config, gone func()) process.Config {
	c.Publish, c.Gone, c.Log, c.Done = t.publish, gone, t.log.Warn, t.done
	return c
}

// gone forgets a container that is deleted, or could not be created.
func (t *taskService) gone(c *process.Container) {
	t.containers.remove(c)
	if t.goes != nil {
		t.goes(c.Bundle())
	}
}

// done is told of every operation that has ended.
func (t *taskService) done(d process.Done) {
	t.history.add(d)
	t.rest.after(t.containers.count())
}

// restore makes a container that another program has handed over.
func (t *taskService) restore(s process.ContainerState, files *handover.Inherited) (*process.Container, error) {
	var c *process.Container
	c, err := process.Restore(t.config(process.Config{}, func() { t.gone(c) }), s, files)
	return c, err
}

// process finds a container and its init process, or the exec of that id.
func (t *taskService) process(id, execID string) (*process.Container, *process.Process, error) {
	container, err := t.containers.get(id)
	if err != nil {
		return nil, nil, err
	}
	p, err := container.Process(execID)
	return container, p, err
}

func (t *taskService) start(ctx context.Context, r *message.StartRequest) (message.Message, error) {
	container, p, err := t.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID == "" {
		err = container.Start(ctx)
	} else {
		err = p.StartExec(ctx)
	}
	if err != nil {
		return nil, err
	}
	return &message.StartResponse{Pid: uint32(p.State().PID)}, nil
}

func (t *taskService) exec(_ context.Context, r *message.ExecProcessRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	if err := bootstrap.ValidName(r.ExecID); err != nil {
		return nil, fmt.Errorf("exec in container %s: exec id %w", r.ID, err)
	}
	if r.ExecID == reservedExecID || r.ExecID == r.ID {
		// Clients and events name the init process so.
		return nil, fmt.Errorf("exec in container %s: exec id %q stands for the init process: %w", r.ID, r.ExecID, errdefs.ErrInvalidArgument)
	}
	// Whatever type the client calls it, it is the runtime spec's process.
	err = container.AddExec(r.ExecID, valueOf(r.Spec),
		stdio.Spec{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal})
	if err == nil {
		graceperiod.Begin() // Start comes next
	}
	return empty, err
}

// reservedExecID is what containerd's own shim names the init process's files.
const reservedExecID = "init"

func (t *taskService) state(_ context.Context, r *message.StateRequest) (message.Message, error) {
	container, p, err := t.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	s := p.State()
	id, told := r.ID, status(s)
	if r.ExecID != "" {
		id = r.ExecID
		// Containers are paused as a whole.
		if s.State == process.Running && container.Init().State().State == process.Paused {
			told = message.Status_PAUSED
		}
	}
	return &message.StateResponse{
		ID:         id,
		Bundle:     string(container.Bundle()),
		Pid:        uint32(s.PID),
		Status:     told,
		Stdin:      s.Stdio.Stdin,
		Stdout:     s.Stdio.Stdout,
		Stderr:     s.Stdio.Stderr,
		Terminal:   s.Stdio.Terminal,
		ExitStatus: uint32(s.Exit.Status),
		ExitedAt:   message.At(s.Exit.At),
	}, nil
}

func (t *taskService) wait(ctx context.Context, r *message.WaitRequest) (message.Message, error) {
	_, p, err := t.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	exit, err := p.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &message.WaitResponse{ExitStatus: uint32(exit.Status), ExitedAt: message.At(exit.At)}, nil
}

func (t *taskService) kill(_ context.Context, r *message.KillRequest) (message.Message, error) {
	_, p, err := t.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return empty, p.Kill(syscall.Signal(r.Signal), r.All)
}

func (t *taskService) pids(_ context.Context, r *message.PidsRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	pids, err := container.PIDs()
	if err != nil {
		return nil, err
	}
	return processes(pids), nil
}

func (t *taskService) closeIO(_ context.Context, r *message.CloseIORequest) (message.Message, error) {
	_, p, err := t.process(r.ID, r.ExecID)
	if err != nil || !r.Stdin {
		return empty, err
	}
	return empty, p.CloseStdin()
}

func (t *taskService) resizePty(_ context.Context, r *message.ResizePtyRequest) (message.Message, error) {
	_, p, err := t.process(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	const max = 1<<16 - 1 // struct winsize has 16 bits
	if r.Width > max || r.Height > max {
		return nil, fmt.Errorf("resize terminal of container %s to %dx%d: larger than %d: %w", r.ID, r.Width, r.Height, max, errdefs.ErrInvalidArgument)
	}
	return empty, p.Resize(uint16(r.Width), uint16(r.Height))
}

func (t *taskService) stats(_ context.Context, r *message.StatsRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	stats, err := container.Stats()
	if err != nil {
		return nil, err
	}
	return &message.StatsResponse{Stats: &message.Any{TypeUrl: stats.Message, Value: stats.Encoded}}, nil
}

func (t *taskService) delete(ctx context.Context, r *message.DeleteRequest) (message.Message, error) {
	// Also one that is still being created.
	container, err := t.containers.find(r.ID)
	if err != nil {
		return nil, err
	}
	p, err := container.Process(r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID == "" {
		err = container.Delete(ctx)
	} else {
		err = p.DeleteExec(ctx)
	}
	if err != nil {
		return nil, err
	}
	s := p.State()
	return &message.DeleteResponse{Pid: uint32(s.PID), ExitStatus: uint32(s.Exit.Status), ExitedAt: message.At(s.Exit.At)}, nil
}

// connect answers for any id, also for one that is not (yet) served:
// containerd uses it to see who is there.
func (t *taskService) connect(ctx context.Context, r *message.ConnectRequest) (message.Message, error) {
	if _, joins := ttrpcserver.MetadataOf(ctx)[bootstrap.JoinKey]; joins {
		if !t.containers.expect(r.ID, joinLimit) {
			return nil, ttrpcserver.ErrDrop
		}
		graceperiod.BeginLate() // for the container that is to be created
	}
	response := &message.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if container, err := t.containers.get(r.ID); err == nil {
		response.TaskPid = uint32(container.Init().State().PID)
	}
	return response, nil
}

func (t *taskService) shutdown(_ context.Context, r *message.ShutdownRequest) (message.Message, error) {
	t.containers.shutdown(r.ID)
	return empty, nil
}

func (t *taskService) pause(ctx context.Context, r *message.PauseRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, container.Pause(ctx)
}

func (t *taskService) resume(ctx context.Context, r *message.ResumeRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, container.Resume(ctx)
}

func (t *taskService) update(ctx context.Context, r *message.UpdateTaskRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	return empty, container.Update(ctx, valueOf(r.Resources), r.Annotations)
}

func (t *taskService) checkpoint(ctx context.Context, r *message.CheckpointTaskRequest) (message.Message, error) {
	container, err := t.containers.get(r.ID)
	if err != nil {
		return nil, err
	}
	o, err := checkpointOptions(r)
	if err != nil {
		return nil, fmt.Errorf("checkpoint container %s: %w", r.ID, err)
	}
	return empty, container.Checkpoint(ctx, o)
}
