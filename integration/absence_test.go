package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestExecStormWhileContainerdIsAwayIsToldInOrder fills a shim with more events
// than it keeps in memory, while containerd is away, and replaces its program in
// the middle of it. When containerd is back it is told all, once, in order.
func TestExecStormWhileContainerdIsAwayIsToldInOrder(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	d := ownDaemon(t, config())
	b := newBox(t, d, "storm", forever).start(nil)
	shim := b.shim()
	m := &member{lone: &lone{t: t, ctx: b.ctx}, id: b.ID(), shim: shim}
	pid := m.shimPID()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}

	const lanes, rounds, idle = 8, 8, 18 // in each round of a lane one exec runs, and some are only added
	long := strings.Repeat("-x", 30)     // fewer events then are too many to be kept in memory
	ids := make([][]string, lanes)
	storm := func(from, to int) {
		t.Helper()
		var all errgroup.Group
		for lane := range lanes {
			all.Go(func() error {
				for round := from; round < to; round++ {
					for n := range idle {
						id := fmt.Sprintf("idle-%d-%d-%d", lane, round, n) + long
						if _, err := shim.Exec(b.ctx, m.execRequest(id, "true")); err != nil {
							return err
						}
						if _, err := m.tryDelete(b.ctx, id); err != nil {
							return err
						}
						ids[lane] = append(ids[lane], id)
					}
					id := fmt.Sprintf("runs-%d-%d", lane, round)
					if _, err := shim.Exec(b.ctx, m.execRequest(id, "true")); err != nil {
						return err
					}
					if _, err := m.tryStart(id); err != nil {
						return err
					}
					if _, err := shim.Wait(b.ctx, &task.WaitRequest{ID: m.id, ExecID: id}); err != nil {
						return err
					}
					if _, err := m.tryDelete(b.ctx, id); err != nil {
						return err
					}
					ids[lane] = append(ids[lane], id)
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	storm(0, rounds/2)
	upgradeTo(t, shim, programs.Shim)
	storm(rounds/2, rounds-1)
	eventually(t, func() error { return spills(pid) })
	upgradeTo(t, shim, programs.Shim)
	storm(rounds-1, rounds)

	events := comesBack(t, d)
	b.reload()
	ended := b.wait(b.task)
	if err := b.task.Kill(b.ctx, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended()
	b.delete() // the shim stays until all is told
	list, err := events.Until(bounded(t), b.ID(), func(list []daemon.Event) bool {
		return slices.ContainsFunc(list, func(e daemon.Event) bool { return e.Topic == "/tasks/delete" && e.ExecID == "" })
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{} // by exec
	added := make([][]string, lanes)
	for _, e := range list {
		got[e.ExecID] = append(got[e.ExecID], e.Topic)
		var lane int
		if e.Topic == "/tasks/exec-added" {
			fmt.Sscanf(e.ExecID[len("idle-"):], "%d", &lane)
			added[lane] = append(added[lane], e.ExecID)
		}
	}
	for lane := range lanes {
		if !slices.Equal(added[lane], ids[lane]) {
			t.Errorf("lane %d: %d execs were added, %d of them are told, or not in order", lane, len(ids[lane]), len(added[lane]))
		}
		for _, id := range ids[lane] {
			want := []string{"/tasks/exec-added"}
			if strings.HasPrefix(id, "runs-") {
				want = append(want, "/tasks/exec-started", "/tasks/exit")
			}
			want = append(want, "/tasks/delete")
			if !slices.Equal(got[id], want) {
				t.Errorf("told of %s is %q, want %q", id, got[id], want)
			}
		}
	}
	t.Logf("%d events", len(list))
	nothingLeft(t, d)
}

// spills returns nil if a shim keeps events in a file.
func spills(pid int) error {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasSuffix(to, " (deleted)") && strings.Contains(to, "io.containerd.runtime.v2.task") {
			return nil
		}
	}
	return fmt.Errorf("process %d has no file without a name in %d descriptors", pid, len(fds))
}
