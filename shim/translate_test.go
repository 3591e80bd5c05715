package shim

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/message"
	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Every event is the message that containerd has for its topic, with everything
// that is known in it.
func TestEventsAreContainerds(t *testing.T) {
	at := time.Unix(1700000000, 123456789)
	exit := process.Exit{Status: 137, Signal: 9, At: at}
	for _, c := range []struct {
		event process.Event
		topic string
		want  proto.Message
	}{
		{
			process.Event{Kind: process.ContainerCreated, Container: "c", PID: 7, Bundle: "/b", Checkpoint: "/image",
				Rootfs: []oci.Mount{{Type: "overlay", Source: "overlay", Target: "t", Options: []string{"ro", "x=y"}}},
				Stdio:  stdio.Spec{Stdin: "/in", Stdout: "file:///out", Stderr: "/err", Terminal: true}},
			runtime.TaskCreateEventTopic,
			&events.TaskCreate{ContainerID: "c", Pid: 7, Bundle: "/b", Checkpoint: "/image",
				Rootfs: []*types.Mount{{Type: "overlay", Source: "overlay", Target: "t", Options: []string{"ro", "x=y"}}},
				IO:     &events.TaskIO{Stdin: "/in", Stdout: "file:///out", Stderr: "/err", Terminal: true}},
		},
		{process.Event{Kind: process.ContainerStarted, Container: "c", PID: 7}, runtime.TaskStartEventTopic, &events.TaskStart{ContainerID: "c", Pid: 7}},
		{process.Event{Kind: process.ExecAdded, Container: "c", Exec: "e"}, runtime.TaskExecAddedEventTopic, &events.TaskExecAdded{ContainerID: "c", ExecID: "e"}},
		{process.Event{Kind: process.ExecStarted, Container: "c", Exec: "e", PID: 8}, runtime.TaskExecStartedEventTopic, &events.TaskExecStarted{ContainerID: "c", ExecID: "e", Pid: 8}},
		// The init process goes by the id of its container.
		{process.Event{Kind: process.Exited, Container: "c", PID: 7, Exit: exit}, runtime.TaskExitEventTopic, &events.TaskExit{ContainerID: "c", ID: "c", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)}},
		{process.Event{Kind: process.Exited, Container: "c", Exec: "e", PID: 8, Exit: exit}, runtime.TaskExitEventTopic, &events.TaskExit{ContainerID: "c", ID: "e", Pid: 8, ExitStatus: 137, ExitedAt: timestamppb.New(at)}},
		{process.Event{Kind: process.ProcessDeleted, Container: "c", PID: 7, Exit: exit}, runtime.TaskDeleteEventTopic, &events.TaskDelete{ContainerID: "c", ID: "c", Pid: 7, ExitStatus: 137, ExitedAt: timestamppb.New(at)}},
		{process.Event{Kind: process.ProcessDeleted, Container: "c", Exec: "e", PID: 8, Exit: exit}, runtime.TaskDeleteEventTopic, &events.TaskDelete{ContainerID: "c", ID: "e", Pid: 8, ExitStatus: 137, ExitedAt: timestamppb.New(at)}},
		{process.Event{Kind: process.OutOfMemory, Container: "c"}, runtime.TaskOOMEventTopic, &events.TaskOOM{ContainerID: "c"}},
		{process.Event{Kind: process.ContainerPaused, Container: "c"}, runtime.TaskPausedEventTopic, &events.TaskPaused{ContainerID: "c"}},
		{process.Event{Kind: process.ContainerResumed, Container: "c"}, runtime.TaskResumedEventTopic, &events.TaskResumed{ContainerID: "c"}},
		{process.Event{Kind: process.ContainerCheckpointed, Container: "c", Checkpoint: "/image"}, runtime.TaskCheckpointedEventTopic, &events.TaskCheckpointed{ContainerID: "c", Checkpoint: "/image"}},
	} {
		topic, m := translate(c.event)
		got := generated(t, m)
		if topic != c.topic || !proto.Equal(got, c.want) {
			t.Errorf("%+v: %s %v, want %s %v", c.event, topic, got, c.topic, c.want)
		}
		// containerd looks at the type alone to find the topic.
		if of := runtime.GetTopic(got); of != topic {
			t.Errorf("containerd has %s for a %T, not %s", of, got, topic)
		}
	}
	// None is forgotten: one more than the last is none.
	for kind := range process.ContainerCheckpointed + 1 {
		translate(process.Event{Kind: kind})
	}
	defer func() {
		if recover() == nil {
			t.Error("an event that does not exist has a message")
		}
	}()
	translate(process.Event{Kind: process.ContainerCheckpointed + 1})
}

// generated reads a message as a client does.
func generated(t *testing.T, m message.Message) proto.Message {
	t.Helper()
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.Name()))
	must(t, "find type", err)
	read := found.New().Interface()
	must(t, "read", proto.Unmarshal(m.Append(nil), read))
	return read
}

func TestStatesAreContainerds(t *testing.T) {
	want := map[process.State]message.Status{
		process.Absent: message.Status_UNKNOWN, process.Created: message.Status_CREATED, process.Restorable: message.Status_CREATED,
		process.Running: message.Status_RUNNING, process.Paused: message.Status_PAUSED, process.Stopped: message.Status_STOPPED, process.Deleted: message.Status_STOPPED,
	}
	for s := process.Absent; s <= process.Deleted; s++ {
		for _, exec := range []string{"", "e"} {
			if got := status(process.ProcessState{State: s, ExecID: exec, PID: 7}); got != want[s] {
				t.Errorf("%s, exec %q: %d, want %d", s, exec, got, want[s])
			}
		}
	}
	if got := status(process.ProcessState{State: process.Stopped, ExecID: "e"}); got != message.Status_CREATED {
		t.Errorf("an exec that could not be started: %d", got)
	}
}

// The zero time is that of Go, which clients compare with, and not 1970.
func TestZeroTimeStaysZero(t *testing.T) {
	if got := message.At(time.Time{}); got.Seconds != -62135596800 || !time.Unix(got.Seconds, int64(got.Nanos)).IsZero() {
		t.Errorf("%v", got)
	}
}

func TestMountsComeAndGo(t *testing.T) {
	messages := []*message.Mount{
		{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/a:/b", "index=off"}},
		{Type: "bind", Source: "/src", Target: "sub", Options: []string{"rbind"}},
	}
	got := mountMessages(mounts(messages))
	if len(got) != len(messages) || !reflect.DeepEqual(got, messages) {
		t.Errorf("%v, want %v", got, messages)
	}
	if mounts(nil) != nil || mountMessages(nil) != nil {
		t.Error("nothing has become something")
	}
}

func TestCheckpointOptions(t *testing.T) {
	pack := func(o *runcoptions.CheckpointOptions) *message.Any { return packed(t, o) }
	for _, c := range []struct {
		name    string
		request *message.CheckpointTaskRequest
		want    driver.CheckpointOptions
		bad     bool
	}{
		{name: "a path alone", request: &message.CheckpointTaskRequest{Path: "/image"}, want: driver.CheckpointOptions{ImagePath: "/image"}},
		{name: "the options' path", request: &message.CheckpointTaskRequest{Options: pack(&runcoptions.CheckpointOptions{ImagePath: "/other"})}, want: driver.CheckpointOptions{ImagePath: "/other"}},
		{name: "both", request: &message.CheckpointTaskRequest{Path: "/image", Options: pack(&runcoptions.CheckpointOptions{ImagePath: "/other"})}, want: driver.CheckpointOptions{ImagePath: "/image"}},
		{name: "everything", request: &message.CheckpointTaskRequest{Path: "/image", Options: pack(&runcoptions.CheckpointOptions{
			Exit: true, OpenTcp: true, ExternalUnixSockets: true, Terminal: true, FileLocks: true, EmptyNamespaces: []string{"network"},
			CgroupsMode: "soft", WorkPath: "/criu", ParentPath: "/parent"})},
			want: driver.CheckpointOptions{ImagePath: "/image", WorkPath: "/criu", ParentPath: "/parent", Exit: true, OpenTCP: true, ExternalUnixSockets: true,
				Terminal: true, FileLocks: true, EmptyNamespaces: []string{"network"}, CgroupsMode: "soft"}},
		{name: "no path", request: &message.CheckpointTaskRequest{}, bad: true},
		{name: "relative path", request: &message.CheckpointTaskRequest{Path: "image"}, bad: true},
		{name: "options of another kind", request: &message.CheckpointTaskRequest{Path: "/image", Options: &message.Any{TypeUrl: "containerd.runc.v1.Options"}}, bad: true},
		{name: "bytes that are no options", request: &message.CheckpointTaskRequest{Path: "/image", Options: &message.Any{TypeUrl: "containerd.runc.v1.CheckpointOptions", Value: []byte{0xff}}}, bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := checkpointOptions(c.request)
			if c.bad != errdefs.IsInvalidArgument(err) || !c.bad && !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

// containerd's CRI takes the details off by its typeurl package.
func TestProcessesAreListedAsContainerdReadsThem(t *testing.T) {
	response := processes(map[int]string{30: "", 7: "exec", 100: ""})
	var pids []uint32
	for _, p := range response.Processes {
		pids = append(pids, p.Pid)
		if p.Pid != 7 {
			if p.Info != nil {
				t.Errorf("process %d has details", p.Pid)
			}
			continue
		}
		details, err := typeurl.UnmarshalAny(sent(p.Info))
		if d, ok := details.(*runcoptions.ProcessDetails); err != nil || !ok || d.ExecID != "exec" {
			t.Errorf("details %v, %v", details, err)
		}
	}
	if !slices.Equal(pids, []uint32{7, 30, 100}) {
		t.Errorf("pids %v", pids)
	}
}
