package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/kernel"
)

// freezeApart freezes a process, or with nested one that is put into a group of
// its own below that of the container, without the shim.
func freezeApart(t *testing.T, pid int, nested bool) (undo func()) {
	t.Helper()
	path, err := kernel.CgroupPath(pid, "freezer", "freezer.state", "cgroup.freeze")
	if err != nil {
		t.Fatal(err)
	}
	dir, file := filepath.Split(path)
	frozen, thawed := "1", "0"
	if file == "freezer.state" {
		frozen, thawed = "FROZEN", "THAWED"
	}
	write := func(dir, file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	if nested {
		dir = filepath.Join(dir, "nested")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(dir, "cgroup.procs", strconv.Itoa(pid))
	}
	write(dir, file, frozen)
	return func() { // for the test that fails
		os.WriteFile(filepath.Join(dir, file), []byte(thawed), 0)
	}
}

// A container, or a part of it, is frozen by somebody else than the shim, as an
// inner container that is paused is. SIGKILL ends it all the same, and its exit
// is told after that of its exec.
func TestContainerFrozenByOthersIsKilled(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for name, namespace := range map[string]func(*specs.Spec){"own": func(*specs.Spec) {}, "host": hostPIDs} {
		for _, all := range []bool{false, true} {
			for _, nested := range []bool{false, true} {
				m := l.member(fmt.Sprintf("frozen-%s-%t-%t", name, all, nested), namespace)
				init := m.create()
				m.start("")
				exec := m.exec("exec", "sleep", "1000")
				pids := cgroupPIDs(t, init)
				frozen := init
				if nested {
					frozen = exec
				}
				undo := freezeApart(t, frozen, nested)
				t.Cleanup(undo)
				if err := m.tryKill("", unix.SIGKILL, all); err != nil {
					t.Fatal(err)
				}
				exit, err := m.tryWait(within(t, soon/2), "")
				if err != nil || exit.ExitStatus != 137 {
					t.Errorf("%s ended with %v, %v, want 137", m.id, exit, err)
					undo()
					m.wait("")
				}
				for _, pid := range pids {
					eventually(t, func() error { return aliveNot(pid) })
				}
				events := m.told("/tasks/exit", "")
				if err := inOrder(events, "/tasks/exit exec", "/tasks/exit"); err != nil {
					t.Error(errors.Join(fmt.Errorf("%s", m.id), err))
				}
				m.finish()
			}
		}
	}
}

// An exec is frozen in a group that is not the container's, where neither the shim
// nor the end of its container reaches it. The container's exit is told when the
// hold is over, and not before; the exec's when it can end.
func TestExitOfInitWaitsForAFrozenExecAndNotForEver(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	const hold = 2 * time.Second
	l := newLone(t)
	m := l.prepare("frozen-apart", hostPIDs) // else the kernel itself keeps the end of init back
	body := fmt.Sprintf("BinaryName = %q\n[limits]\nexec_hold = %q\n", programs.Runc, hold)
	m.startOptions = packed(t, &runtimeoptions.Options{ConfigBody: []byte(body)})
	m.request.Options = m.startOptions
	m.boot().run()
	exec := m.exec("exec", "sleep", "1000")
	runs(t, uint32(exec), "sleep") // and does not go to a group any more
	thaw := freezeElsewhere(t, exec, l.Namespace+"-frozen")

	began := time.Now()
	m.kill("", unix.SIGKILL)
	if status := m.wait(""); status != 137 {
		t.Errorf("it ended with %d, want 137", status)
	}
	if took := time.Since(began); took < hold {
		t.Errorf("its exit is told after %s, not held back for %s", took, hold)
	}
	events := m.told("/tasks/exit", "")
	if indexOf(events, "/tasks/exit", "exec") >= 0 {
		t.Errorf("the exit of what is frozen is told:\n%s", eventLines(events))
	}
	m.is("exec", tasktypes.Status_RUNNING)
	thaw()
	if err := m.tryKill("exec", unix.SIGKILL, false); err != nil && !errdefs.IsNotFound(err) {
		t.Error(err) // the shim's own may have reached it in its group for memory
	}
	if status := m.wait("exec"); status != 137 {
		t.Errorf("the exec ended with %d, want 137", status)
	}
	m.delete("exec")
	if status := m.finish(); status != 137 {
		t.Errorf("Delete says %d, want 137", status)
	}
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/start", "/tasks/exec-started exec", "/tasks/exit", "/tasks/exit exec", "/tasks/delete"); err != nil {
		t.Error(err)
	}
}

// freezeElsewhere freezes a process in a new group of that name.
func freezeElsewhere(t *testing.T, pid int, name string) (thaw func()) {
	t.Helper()
	file, frozen, thawed := filepath.Join("/sys/fs/cgroup/freezer", name, "freezer.state"), "FROZEN", "THAWED"
	if _, err := os.Stat("/sys/fs/cgroup/freezer"); err != nil {
		file, frozen, thawed = filepath.Join("/sys/fs/cgroup", name, "cgroup.freeze"), "1", "0"
	}
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	thaw = func() {
		if err := os.WriteFile(file, []byte(thawed), 0); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		thaw()
		eventually(t, func() error { return os.Remove(dir) })
	})
	for file, text := range map[string]string{filepath.Join(dir, "cgroup.procs"): strconv.Itoa(pid), file: frozen} {
		if err := os.WriteFile(file, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	return thaw
}
