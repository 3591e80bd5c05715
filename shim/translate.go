package shim

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/message"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/errdefs"
)

// publish turns an event into the message that containerd has for it
// (core/runtime/events.go has the topics) and queues it.
func (t *taskService) publish(e process.Event) {
	topic, m := translate(e)
	t.log.Debug("event %s of container %s %s", topic, e.Container, e.Exec)
	t.events.Publish(topic, m)
}

func translate(e process.Event) (topic string, m message.Message) {
	// The init process goes by the id of its container.
	id := e.Exec
	if id == "" {
		id = e.Container
	}
	pid := uint32(e.PID)
	switch e.Kind {
	case process.ContainerCreated:
		return "/tasks/create", &message.TaskCreate{
			ContainerID: e.Container,
			Bundle:      string(e.Bundle),
			Rootfs:      mountMessages(e.Rootfs),
			IO: &message.TaskIO{
				Stdin: e.Stdio.Stdin, Stdout: e.Stdio.Stdout, Stderr: e.Stdio.Stderr, Terminal: e.Stdio.Terminal,
			},
			Checkpoint: e.Checkpoint,
			Pid:        pid,
		}
	case process.ContainerStarted:
		return "/tasks/start", &message.TaskStart{ContainerID: e.Container, Pid: pid}
	case process.ExecAdded:
		return "/tasks/exec-added", &message.TaskExecAdded{ContainerID: e.Container, ExecID: e.Exec}
	case process.ExecStarted:
		return "/tasks/exec-started", &message.TaskExecStarted{ContainerID: e.Container, ExecID: e.Exec, Pid: pid}
	case process.Exited:
		return "/tasks/exit", &message.TaskExit{
			ContainerID: e.Container, ID: id, Pid: pid, ExitStatus: uint32(e.Exit.Status), ExitedAt: message.At(e.Exit.At),
		}
	case process.ProcessDeleted:
		return "/tasks/delete", &message.TaskDelete{
			ContainerID: e.Container, ID: id, Pid: pid, ExitStatus: uint32(e.Exit.Status), ExitedAt: message.At(e.Exit.At),
		}
	case process.OutOfMemory:
		return "/tasks/oom", &message.TaskOOM{ContainerID: e.Container}
	case process.ContainerPaused:
		return "/tasks/paused", &message.TaskPaused{ContainerID: e.Container}
	case process.ContainerResumed:
		return "/tasks/resumed", &message.TaskResumed{ContainerID: e.Container}
	case process.ContainerCheckpointed:
		return "/tasks/checkpointed", &message.TaskCheckpointed{ContainerID: e.Container, Checkpoint: e.Checkpoint}
	}
	panic(fmt.Sprintf("no message for event %d", e.Kind))
}

// status is what containerd calls the state of a process. It has no word for a
// container that waits to be restored, nor for an exec that could not be
// started; like its own shim, this one calls both created.
func status(s process.ProcessState) message.Status {
	if s.ExecID != "" && s.State == process.Stopped && s.PID == 0 {
		return message.Status_CREATED
	}
	switch s.State {
	case process.Created, process.Restorable:
		return message.Status_CREATED
	case process.Running:
		return message.Status_RUNNING
	case process.Paused:
		return message.Status_PAUSED
	case process.Stopped, process.Deleted:
		return message.Status_STOPPED
	}
	return message.Status_UNKNOWN
}

func mounts(messages []*message.Mount) []oci.Mount {
	var mounts []oci.Mount
	for _, m := range messages {
		mounts = append(mounts, oci.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return mounts
}

func mountMessages(mounts []oci.Mount) []*message.Mount {
	var messages []*message.Mount
	for _, m := range mounts {
		messages = append(messages, &message.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return messages
}

// checkpointOptions reads those of a Checkpoint: none, or those of runc.
func checkpointOptions(r *message.CheckpointTaskRequest) (driver.CheckpointOptions, error) {
	var o message.CheckpointOptions
	if r.Options != nil {
		if nameOf(r.Options.TypeUrl) != o.Name() {
			return driver.CheckpointOptions{}, fmt.Errorf("options of type %q: %w", r.Options.TypeUrl, errdefs.ErrInvalidArgument)
		}
		if err := o.Read(r.Options.Value); err != nil {
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
func processes(pids map[int]string) *message.PidsResponse {
	response := &message.PidsResponse{}
	for pid, execID := range pids {
		info := &message.ProcessInfo{Pid: uint32(pid)}
		if execID != "" {
			info.Info = message.Pack(&message.ProcessDetails{ExecID: execID})
		}
		response.Processes = append(response.Processes, info)
	}
	slices.SortFunc(response.Processes, func(a, b *message.ProcessInfo) int { return int(a.Pid) - int(b.Pid) })
	return response
}

// nameOf is the name of a type in the URL of an Any: what follows the last slash
// (google/protobuf/any.proto).
func nameOf(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '/')+1:] }

// valueOf is the message in an Any; none has none.
func valueOf(a *message.Any) []byte {
	if a == nil {
		return nil
	}
	return a.Value
}

// optionsMessage is what a Create has for options; none is one of no type.
func optionsMessage(a *message.Any) options.Message {
	if a == nil {
		return options.Message{}
	}
	return options.Message{TypeURL: a.TypeUrl, Value: a.Value}
}
