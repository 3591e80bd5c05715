package integration

// The RPCs that a test calls on the shim of a container: try… returns the error,
// the other one ends the test.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// packed is a message as containerd's clients pack it.
func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	value, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

func (m *member) packedOptions() *anypb.Any {
	m.t.Helper()
	return packed(m.t, &m.options)
}

// tryCreate calls Create.
func (m *member) tryCreate(ctx context.Context) (uint32, error) {
	m.t.Helper()
	r := proto.CloneOf(m.request)
	if r.Options == nil {
		r.Options = m.packedOptions()
	}
	response, err := m.shim.Create(ctx, r)
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return response.Pid, nil
}

// create creates the container and returns the pid of its init process.
func (m *member) create() int {
	m.t.Helper()
	pid, err := m.tryCreate(m.ctx)
	if err != nil {
		m.t.Fatalf("create %s: %v", m.id, err)
	}
	return int(pid)
}

func (m *member) tryStart(execID string) (int, error) {
	response, err := m.shim.Start(m.ctx, &task.StartRequest{ID: m.id, ExecID: execID})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	return int(response.Pid), nil
}

// start starts the container, with an empty id, or an exec.
func (m *member) start(execID string) int {
	m.t.Helper()
	pid, err := m.tryStart(execID)
	if err != nil {
		m.t.Fatalf("start %s of %s: %v", execID, m.id, err)
	}
	return pid
}

// run creates and starts the container.
func (m *member) run() *member {
	m.t.Helper()
	m.create()
	m.start("")
	return m
}

// execRequest asks for an exec without standard IO.
func (m *member) execRequest(execID string, args ...string) *task.ExecProcessRequest {
	m.t.Helper()
	return &task.ExecProcessRequest{ID: m.id, ExecID: execID, Spec: m.execSpec(args...)}
}

func (m *member) execSpec(args ...string) *anypb.Any {
	m.t.Helper()
	text, err := json.Marshal(&specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}})
	if err != nil {
		m.t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: text}
}

// add adds an exec.
func (m *member) add(r *task.ExecProcessRequest) {
	m.t.Helper()
	if _, err := m.shim.Exec(m.ctx, r); err != nil {
		m.t.Fatalf("add exec %s to %s: %v", r.ExecID, m.id, err)
	}
}

// exec adds and starts an exec without standard IO.
func (m *member) exec(execID string, args ...string) int {
	m.t.Helper()
	m.add(m.execRequest(execID, args...))
	return m.start(execID)
}

func (m *member) tryWait(ctx context.Context, execID string) (*task.WaitResponse, error) {
	response, err := m.shim.Wait(ctx, &task.WaitRequest{ID: m.id, ExecID: execID})
	return response, errgrpc.ToNative(err)
}

// ask asks the container to end, once its shell has come so far that it listens:
// then it has a child.
func (m *member) ask() {
	m.t.Helper()
	pid := int(m.state("").Pid)
	eventually(m.t, func() error {
		if pids := cgroupPIDs(m.t, pid); len(pids) < 2 {
			return fmt.Errorf("%s has only the processes %v", m.id, pids)
		}
		return nil
	})
	m.kill("", unix.SIGTERM)
}

// wait waits for the end of a process and returns its exit status.
func (m *member) wait(execID string) int {
	m.t.Helper()
	response, err := m.tryWait(within(m.t, soon), execID)
	if err != nil {
		m.t.Fatalf("wait for %s of %s: %v", execID, m.id, err)
	}
	return int(response.ExitStatus)
}

func (m *member) tryKill(execID string, signal unix.Signal, all bool) error {
	_, err := m.shim.Kill(m.ctx, &task.KillRequest{ID: m.id, ExecID: execID, Signal: uint32(signal), All: all})
	return errgrpc.ToNative(err)
}

func (m *member) kill(execID string, signal unix.Signal) {
	m.t.Helper()
	if err := m.tryKill(execID, signal, false); err != nil {
		m.t.Fatalf("signal %d to %s of %s: %v", signal, execID, m.id, err)
	}
}

func (m *member) tryDelete(ctx context.Context, execID string) (*task.DeleteResponse, error) {
	response, err := m.shim.Delete(ctx, &task.DeleteRequest{ID: m.id, ExecID: execID})
	return response, errgrpc.ToNative(err)
}

// delete deletes a process that has ended and returns its exit status.
func (m *member) delete(execID string) int {
	m.t.Helper()
	response, err := m.tryDelete(within(m.t, soon), execID)
	if err != nil {
		m.t.Fatalf("delete %s of %s: %v", execID, m.id, err)
	}
	return int(response.ExitStatus)
}

func (m *member) state(execID string) *task.StateResponse {
	m.t.Helper()
	response, err := m.shim.State(within(m.t, soon), &task.StateRequest{ID: m.id, ExecID: execID})
	if err != nil {
		m.t.Fatalf("state of %s of %s: %v", execID, m.id, err)
	}
	return response
}

// is checks the status of a process.
func (m *member) is(execID string, want tasktypes.Status) {
	m.t.Helper()
	if got := m.state(execID).Status; got != want {
		m.t.Errorf("%s %s is %s, want %s", m.id, execID, got, want)
	}
}

// shimPID is the shim's process.
func (m *member) shimPID() int {
	m.t.Helper()
	response, err := m.shim.Connect(within(m.t, soon), &task.ConnectRequest{ID: m.id})
	if err != nil {
		m.t.Fatalf("connect to the shim of %s: %v", m.id, err)
	}
	return int(response.ShimPid)
}

// shutdown tells the shim that the container is deleted. As for containerd,
// one that is gone before it has answered has answered; TestTrap39 is strict.
func (m *member) shutdown() {
	m.t.Helper()
	_, err := m.shim.Shutdown(within(m.t, soon), &task.ShutdownRequest{ID: m.id})
	if err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		m.t.Errorf("shutdown of %s: %v", m.id, err)
	}
	m.shim.Close()
}

// finish deletes a container that has ended, and the shim if it is its last.
// Stock loses what it has not told when it ends; TestTrap14 and TestTrap15 are
// strict.
func (m *member) finish() int {
	m.t.Helper()
	status := m.delete("")
	if onStock() {
		m.told("/tasks/delete", "")
	}
	m.shutdown()
	m.clean()
	return status
}

// crowd runs so many more containers of a group, some at a time.
func (l *lone) crowd(name string, size int) (all []*member) {
	l.t.Helper()
	var starting errgroup.Group
	starting.SetLimit(4)
	for i := range size {
		m := l.prepare(fmt.Sprintf("%s-%d", name, i+1), group(name))
		m.boot()
		all = append(all, m)
		starting.Go(func() error {
			if _, err := m.tryCreate(m.ctx); err != nil {
				return fmt.Errorf("create %s: %w", m.id, err)
			}
			_, err := m.tryStart("")
			return err
		})
	}
	if err := starting.Wait(); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// end kills a container and removes it and its shim.
func (m *member) end() {
	m.t.Helper()
	if err := m.tryKill("", unix.SIGKILL, true); err != nil && !errdefs.IsNotFound(err) {
		m.t.Fatalf("kill %s: %v", m.id, err)
	}
	m.wait("")
	m.finish()
}

// pids of the container, ascending.
func (m *member) pids() (pids []int) {
	m.t.Helper()
	response, err := m.shim.Pids(within(m.t, soon), &task.PidsRequest{ID: m.id})
	if err != nil {
		m.t.Fatalf("pids of %s: %v", m.id, err)
	}
	for _, p := range response.Processes {
		pids = append(pids, int(p.Pid))
	}
	return pids
}
