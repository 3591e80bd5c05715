package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

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
