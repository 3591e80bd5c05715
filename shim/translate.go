package shim

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process"
	"github.com/containerd/containerd/api/events"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// publish turns an event into the message that containerd has for it
// (core/runtime/events.go has the topics) and queues it.
func (t *taskService) publish(e process.Event) {
	topic, message := translate(e)
	t.log.Debug("event %s of container %s %s", topic, e.Container, e.Exec)
	t.events.Publish(topic, message)
}

func translate(e process.Event) (topic string, message proto.Message) {
	// The init process goes by the id of its container.
	id := e.Exec
	if id == "" {
		id = e.Container
	}
	pid := uint32(e.PID)
	switch e.Kind {
	case process.ContainerCreated:
		return "/tasks/create", &events.TaskCreate{
			ContainerID: e.Container,
			Bundle:      string(e.Bundle),
			Rootfs:      mountMessages(e.Rootfs),
			IO: &events.TaskIO{
				Stdin: e.Stdio.Stdin, Stdout: e.Stdio.Stdout, Stderr: e.Stdio.Stderr, Terminal: e.Stdio.Terminal,
			},
			Checkpoint: e.Checkpoint,
			Pid:        pid,
		}
	case process.ContainerStarted:
		return "/tasks/start", &events.TaskStart{ContainerID: e.Container, Pid: pid}
	case process.ExecAdded:
		return "/tasks/exec-added", &events.TaskExecAdded{ContainerID: e.Container, ExecID: e.Exec}
	case process.ExecStarted:
		return "/tasks/exec-started", &events.TaskExecStarted{ContainerID: e.Container, ExecID: e.Exec, Pid: pid}
	case process.Exited:
		return "/tasks/exit", &events.TaskExit{
			ContainerID: e.Container, ID: id, Pid: pid, ExitStatus: uint32(e.Exit.Status), ExitedAt: timestamp(e.Exit.At),
		}
	case process.ProcessDeleted:
		return "/tasks/delete", &events.TaskDelete{
			ContainerID: e.Container, ID: id, Pid: pid, ExitStatus: uint32(e.Exit.Status), ExitedAt: timestamp(e.Exit.At),
		}
	case process.OutOfMemory:
		return "/tasks/oom", &events.TaskOOM{ContainerID: e.Container}
	case process.ContainerPaused:
		return "/tasks/paused", &events.TaskPaused{ContainerID: e.Container}
	case process.ContainerResumed:
		return "/tasks/resumed", &events.TaskResumed{ContainerID: e.Container}
	case process.ContainerCheckpointed:
		return "/tasks/checkpointed", &events.TaskCheckpointed{ContainerID: e.Container, Checkpoint: e.Checkpoint}
	}
	panic(fmt.Sprintf("no message for event %d", e.Kind))
}

// status is what containerd calls the state of a process. It has no word for a
// container that waits to be restored, nor for an exec that could not be
// started; like its own shim, this one calls both created.
func status(s process.ProcessState) tasktypes.Status {
	if s.ExecID != "" && s.State == process.Stopped && s.PID == 0 {
		return tasktypes.Status_CREATED
	}
	switch s.State {
	case process.Created, process.Restorable:
		return tasktypes.Status_CREATED
	case process.Running:
		return tasktypes.Status_RUNNING
	case process.Paused:
		return tasktypes.Status_PAUSED
	case process.Stopped, process.Deleted:
		return tasktypes.Status_STOPPED
	}
	return tasktypes.Status_UNKNOWN
}

// timestamp sends the zero time as what it is in Go, as containerd's own shim
// does.
func timestamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

func mounts(messages []*types.Mount) []oci.Mount {
	var mounts []oci.Mount
	for _, m := range messages {
		mounts = append(mounts, oci.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts
}

func mountMessages(mounts []oci.Mount) []*types.Mount {
	var messages []*types.Mount
	for _, m := range mounts {
		messages = append(messages, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return messages
}

// checkpointOptions reads those of a Checkpoint: none, or those of runc.
func checkpointOptions(r *task.CheckpointTaskRequest) (driver.CheckpointOptions, error) {
	var o runcoptions.CheckpointOptions
	if r.Options != nil {
		if r.Options.MessageName() != o.ProtoReflect().Descriptor().FullName() {
			return driver.CheckpointOptions{}, fmt.Errorf("options of type %q: %w", r.Options.TypeUrl, errdefs.ErrInvalidArgument)
		}
		if err := proto.Unmarshal(r.Options.Value, &o); err != nil {
			return driver.CheckpointOptions{}, fmt.Errorf("options: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	image := r.Path
	if image == "" {
		image = o.ImagePath
	}
	if !filepath.IsAbs(image) {
		return driver.CheckpointOptions{}, fmt.Errorf("image path %q is not absolute: %w", image, errdefs.ErrInvalidArgument)
	}
	return driver.CheckpointOptions{
		ImagePath:           image,
		WorkPath:            o.WorkPath,
		ParentPath:          o.ParentPath,
		Exit:                o.Exit,
		OpenTCP:             o.OpenTcp,
		ExternalUnixSockets: o.ExternalUnixSockets,
		Terminal:            o.Terminal,
		FileLocks:           o.FileLocks,
		EmptyNamespaces:     o.EmptyNamespaces,
		CgroupsMode:         o.CgroupsMode,
	}, nil
}

// processes lists pids in ascending order. Those of execs carry their ids.
func processes(pids map[int]string) (*task.PidsResponse, error) {
	response := &task.PidsResponse{}
	for pid, execID := range pids {
		info := &tasktypes.ProcessInfo{Pid: uint32(pid)}
		if execID != "" {
			details, err := pack(&runcoptions.ProcessDetails{ExecID: execID})
			if err != nil {
				return nil, err
			}
			info.Info = details
		}
		response.Processes = append(response.Processes, info)
	}
	slices.SortFunc(response.Processes, func(a, b *tasktypes.ProcessInfo) int { return int(a.Pid) - int(b.Pid) })
	return response, nil
}

// pack makes an Any whose type is named as containerd's typeurl package does.
func pack(message proto.Message) (*anypb.Any, error) {
	value, err := proto.Marshal(message)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: string(message.ProtoReflect().Descriptor().FullName()), Value: value}, nil
}
