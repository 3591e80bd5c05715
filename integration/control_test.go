package integration

// Pausing, limiting and measuring a container, and ending all of it.

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatrun/cleat/integration/kernel"
)

func (m *member) pause() {
	m.t.Helper()
	if _, err := m.shim.Pause(m.ctx, &task.PauseRequest{ID: m.id}); err != nil {
		m.t.Fatalf("pause %s: %v", m.id, err)
	}
}

func (m *member) resume() {
	m.t.Helper()
	if _, err := m.shim.Resume(m.ctx, &task.ResumeRequest{ID: m.id}); err != nil {
		m.t.Fatalf("resume %s: %v", m.id, err)
	}
}

func (m *member) update(resources *specs.LinuxResources) {
	m.t.Helper()
	text, err := json.Marshal(resources)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = m.shim.Update(m.ctx, &task.UpdateTaskRequest{ID: m.id, Resources: &anypb.Any{Value: text}})
	if err != nil {
		m.t.Fatalf("update %s: %v", m.id, err)
	}
}

// usage is what Stats tells, of either kind.
type usage struct {
	memory, memoryLimit, pids, cpu uint64
}

func (m *member) stats() usage {
	m.t.Helper()
	response, err := m.shim.Stats(within(m.t, soon), &task.StatsRequest{ID: m.id})
	if err != nil {
		m.t.Fatalf("statistics of %s: %v", m.id, err)
	}
	message, err := typeurl.UnmarshalAny(response.Stats)
	if err != nil {
		m.t.Fatal(err)
	}
	switch s := message.(type) {
	case *cgroup1.Metrics:
		return usage{s.GetMemory().GetUsage().GetUsage(), s.GetMemory().GetUsage().GetLimit(), s.GetPids().GetCurrent(), s.GetCPU().GetUsage().GetTotal()}
	case *cgroup2.Metrics:
		return usage{s.GetMemory().GetUsage(), s.GetMemory().GetUsageLimit(), s.GetPids().GetCurrent(), s.GetCPU().GetUsageUsec()}
	default:
		m.t.Fatalf("statistics of %s are a %T", m.id, s)
		return usage{}
	}
}

// frozen says whether a process's cgroup is.
func frozen(t *testing.T, pid int) bool {
	t.Helper()
	state := cgroupFile(t, pid, "freezer", "freezer.state", "cgroup.freeze")
	return state == "FROZEN" || state == "1"
}

func TestPauseStopsAndResumeContinues(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("pause", args("sh", "-c", "while :; do :; done"))
	pid := m.create()
	if _, err := m.shim.Pause(l.ctx, &task.PauseRequest{ID: m.id}); err == nil {
		t.Error("a container that is not started is paused")
	}
	m.start("")
	for range 2 {
		m.pause()
		m.is("", tasktypes.Status_PAUSED)
		if !frozen(t, pid) {
			t.Error("the cgroup of a paused container is not frozen")
		}
		used := m.stats().cpu
		<-time.After(20 * time.Millisecond) // time that it would have used
		if more := m.stats().cpu; more != used {
			t.Errorf("a paused container has used %d more of the processor", more-used)
		}
		if _, err := m.shim.Pause(l.ctx, &task.PauseRequest{ID: m.id}); err == nil {
			t.Error("a paused container is paused again")
		}
		m.resume()
		m.is("", tasktypes.Status_RUNNING)
		if frozen(t, pid) {
			t.Error("the cgroup of a resumed container is frozen")
		}
		eventually(t, func() error {
			if m.stats().cpu == used {
				return fmt.Errorf("the resumed container does nothing")
			}
			return nil
		})
	}
	m.end()
	var order []string
	for _, e := range m.told("/tasks/delete", "") {
		order = append(order, strings.TrimPrefix(e.Topic, "/tasks/"))
	}
	if got, want := strings.Join(order, " "), "create start paused resumed paused resumed exit delete"; got != want {
		t.Errorf("told is %s, want %s", got, want)
	}
}

// A container can end while its cgroup is frozen: on cgroup v2 by any SIGKILL, as
// the OOM killer's. To the OCI runtime it is paused then, and not to be deleted.
func TestContainerThatEndsFrozenIsDeleted(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("ends-frozen")
	pid := m.create()
	file, err := kernel.CgroupPath(pid, "freezer", "freezer.state", "cgroup.freeze")
	if err != nil {
		t.Fatal(err)
	}
	m.start("")
	m.kill("", unix.SIGKILL)
	if status := m.wait(""); status != 137 {
		t.Errorf("it ended with %d", status)
	}
	freeze := map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"}[filepath.Base(file)]
	if err := os.WriteFile(file, []byte(freeze), 0); err != nil {
		t.Fatal(err)
	}
	m.finish()
}

// What is asked of a paused container that cannot be is refused, and what can
// be is done.
func TestPausedContainer(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("paused").run()
	// It catches the signal: one that is fatal anyway ends what is frozen on
	// cgroup v2, and on v1 when it is thawed.
	pid := m.exec("e", "sh", "-c", "trap 'exit 43' TERM; while :; do sleep 0.01; done")
	catches(t, uint32(pid), unix.SIGTERM)
	m.pause()
	_, err := m.shim.Exec(l.ctx, m.execRequest("more", "true"))
	if err = errgrpc.ToNative(err); err == nil {
		t.Error("an exec is added to a paused container")
	} else if !onStock() && !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an exec in a paused container gives %v", err)
	}
	if _, err := m.tryDelete(l.ctx, ""); err == nil {
		t.Error("a paused container is deleted")
	}
	limit := int64(77 << 20)
	m.update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}})
	if got := m.stats().memoryLimit; got != uint64(limit) {
		t.Errorf("the memory limit of a paused container is %d, want %d", got, limit)
	}
	// A signal waits for the end of the pause.
	m.kill("e", unix.SIGTERM)
	m.is("e", tasktypes.Status_PAUSED)
	m.resume()
	if status := m.wait("e"); status != 43 {
		t.Errorf("the exec ended with %d, want 43", status)
	}
	m.delete("e")
	m.end()
}

// Limits can be changed before the start and while the container runs.
func TestUpdateChangesLimits(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("update")
	pid := m.create()
	for i, start := range []func(){func() {}, func() { m.start("") }} {
		start()
		memory, pids, shares := int64(64+i)<<20, int64(20+i), uint64(512+2*i)
		m.update(&specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory},
			Pids:   &specs.LinuxPids{Limit: &pids},
			CPU:    &specs.LinuxCPU{Shares: &shares},
		})
		if got := memoryLimit(t, pid); got != fmt.Sprint(memory) {
			t.Errorf("the memory limit is %s, want %d", got, memory)
		}
		if got := cgroupFile(t, pid, "pids", "pids.max", "pids.max"); got != fmt.Sprint(pids) {
			t.Errorf("the limit of processes is %s, want %d", got, pids)
		}
		if got := cgroupFile(t, pid, "cpu", "cpu.shares", "cpu.weight"); got == "100" || got == "1024" {
			t.Errorf("the share of the processor is still the usual one, %s", got)
		}
		if got := m.stats().memoryLimit; got != uint64(memory) {
			t.Errorf("the statistics' memory limit is %d, want %d", got, memory)
		}
	}
	m.end()
}

func TestStatsTellWhatTheContainerUses(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("stats").run()
	m.exec("e", "sleep", "1000")
	eventually(t, func() error {
		if u := m.stats(); u.memory == 0 || u.cpu == 0 || u.pids != 3 {
			return fmt.Errorf("a container of three processes uses %+v", u)
		}
		return nil
	})
	m.end()
}

// Kill with all reaches every process, with whatever signal. init takes it and
// goes on, so that nothing else can have ended the others. Stock fails: with a
// PID namespace of its own only init is reached.
func TestKillAllReachesEveryProcess(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for name, namespace := range map[string]func(*specs.Spec){"own": func(*specs.Spec) {}, "host": hostPIDs} {
		m := l.member("killall-"+name, namespace, args("sh", "-c", "trap 'exit 9' TERM; trap : USR1; while :; do sleep 1000 & wait; done"))
		init := m.create()
		m.start("")
		m.exec("e", "sleep", "1000")
		eventually(t, func() error {
			if pids := cgroupPIDs(t, init); len(pids) < 3 {
				return fmt.Errorf("%s has the processes %v", m.id, pids)
			}
			return nil
		})
		pids := cgroupPIDs(t, init)
		if err := m.tryKill("", unix.SIGUSR1, true); err != nil {
			t.Fatal(err)
		}
		if status := m.wait("e"); status != 128+int(unix.SIGUSR1) {
			t.Errorf("the exec ended with %d, want %d", status, 128+unix.SIGUSR1)
		}
		for _, pid := range pids {
			if pid != init {
				eventually(t, func() error { return aliveNot(pid) })
			}
		}
		m.is("", tasktypes.Status_RUNNING)
		m.delete("e")
		m.ask()
		if status := m.wait(""); status != 9 {
			t.Errorf("init ended with %d, want 9", status)
		}
		m.finish()
	}
}

// Somebody has removed the state that the OCI runtime keeps of a container. It
// can still be ended and deleted. Stock fails: Kill says that there is no such
// container.
func TestRuntimesStateThatIsGoneIsNoReasonToKeepAContainer(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, ended := range []bool{false, true} {
		m := l.member(fmt.Sprint("stateless-", ended)).run()
		if ended {
			m.ask()
			m.wait("")
		}
		if err := os.RemoveAll(filepath.Join(l.RuntimeState(), m.id)); err != nil {
			t.Fatal(err)
		}
		if !ended {
			m.is("", tasktypes.Status_RUNNING)
			m.add(m.execRequest("e", "true"))
			if _, err := m.tryStart("e"); err == nil || !strings.Contains(err.Error(), "does not exist") {
				t.Errorf("an exec without the runtime's state gives %v", err)
			}
			m.ask()
		}
		if status := m.wait(""); status != 9 {
			t.Errorf("the container ended with %d, want 9", status)
		}
		if status := m.finish(); status != 9 {
			t.Errorf("Delete says %d, want 9", status)
		}
	}
}

// A Delete that has failed can be asked again, and so can one that nobody has
// waited for.
func TestDeleteIsAskedAgain(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	g := newGate(t)
	m := l.member("again", args("sh", "-c", "exit 6"))
	m.options.BinaryName = scripted(t, `[ "$command" = delete ] && [ ! -e $0.failed ] && { >$0.failed; echo broken >&2; exit 3; }
[ "$command" = delete ] && `+g.wait())
	m.run()
	m.wait("")
	if _, err := m.tryDelete(l.ctx, ""); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a Delete whose runtime fails gives %v", err)
	}
	m.is("", tasktypes.Status_STOPPED)
	short, cancel := context.WithCancel(l.ctx)
	given := make(chan error, 1)
	go func() { _, err := m.tryDelete(short, ""); given <- err }()
	g.reached()
	cancel()
	if err := <-given; err == nil {
		t.Error("a Delete that nobody waits for any more has an answer")
	}
	joined := make(chan error, 1)
	go func() {
		response, err := m.tryDelete(l.ctx, "")
		if err == nil && response.ExitStatus != 6 {
			err = fmt.Errorf("Delete says %d, want 6", response.ExitStatus)
		}
		joined <- err
	}()
	g.let()
	if err := <-joined; err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("Delete asked again: %v", err)
	}
	m.shutdown()
	m.clean()
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
}
