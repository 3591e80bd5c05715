package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// envNarrow tells this program that it is in a PID namespace of its own, for
// TestExitsAreRightWhereNumbersAreFew.
const envNarrow = "CLEAT_TEST_NARROW"

const (
	fewNumbers    = 450 // the kernel takes none below 300 again, and allows no fewer than 301
	fewForMachine = 500 // which also has those of a whole system
	pidMax        = "/proc/sys/kernel/pid_max"
)

// TestExitsAreRightWhereNumbersAreFew runs a shim and its OCI runtime in a PID
// namespace with some hundred numbers, so that each belongs to one process after
// the other: to OCI runtimes, their threads, orphans, execs and containers. Every
// exit must be that of its process, told once and in order. Where the limit is the
// whole host's, which it is before Linux 6.14, that must be a machine of its own.
func TestExitsAreRightWhereNumbersAreFew(t *testing.T) {
	if os.Getenv(envNarrow) != "" {
		exitsAreRight(t)
		return
	}
	switch {
	case ownPIDMax(t):
		t.Parallel()
	case inMachine(): // alone
		before, err := os.ReadFile(pidMax)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.WriteFile(pidMax, before, 0) })
		if err := os.WriteFile(pidMax, []byte(strconv.Itoa(fewForMachine)), 0); err != nil {
			t.Fatal(err)
		}
	default:
		t.Skip("kernel.pid_max is the whole host's before Linux 6.14")
	}
	before, err := os.ReadFile(pidMax)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The shell is the namespace's init and reaps what is left to it.
	cmd := exec.CommandContext(bounded(t), programs.Busybox, "sh", "-c", `mount -t proc proc /proc && "$@"; exit $?`,
		"sh", self, "-test.v", "-test.count=1", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), envNarrow+"=1")
	// Unshared, not cloned: then Go makes the mounts private first.
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = soon
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, said, found := strings.Cut(line, "numbers: "); found {
			t.Log(strings.TrimSpace(said))
		}
	}
	if after, err := os.ReadFile(pidMax); err != nil || string(after) != string(before) {
		t.Errorf("this namespace had %s numbers, and has %s now, %v", before, after, err)
	}
}

// ownPIDMax tells whether each PID namespace has its own pid_max: it came with
// Linux 6.14.
func ownPIDMax(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 14
}

// exitsAreRight is the test inside the namespace.
func exitsAreRight(t *testing.T) {
	const lanes = 3
	l := newLone(t)
	keeper := l.member("keeper", group("few")).run()
	shim := keeper.shimPID()
	if ownPIDMax(t) {
		if err := os.WriteFile(pidMax, []byte(strconv.Itoa(fewNumbers)), 0); err != nil {
			t.Fatal(err)
		}
	}
	numbers, err := os.ReadFile(pidMax)
	if err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex // guards what follows
	used := map[int]bool{}
	again := 0 // how often a number was one that another process had had
	use := func(pid int) {
		mu.Lock()
		defer mu.Unlock()
		if used[pid] {
			again++
		}
		used[pid] = true
	}
	var execs []string // of keeper
	var containers []*member

	enough := upgrades(t, 30)
	if !ownPIDMax(t) {
		enough = upgrades(t, 4)
	}
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return again < enough && l.ctx.Err() == nil
	}
	var all errgroup.Group
	for lane := range lanes {
		all.Go(func() error {
			for i := 0; more(); i++ {
				id, code := fmt.Sprintf("e-%d-%d", lane, i), 1+(lane*83+i)%200
				// It leaves an orphan, which ends at about the same time.
				r := keeper.execRequest(id, "sh", "-c", fmt.Sprintf("(usleep 2000; exit 77) & exit %d", code))
				if _, err := keeper.shim.Exec(l.ctx, r); err != nil {
					return fmt.Errorf("add %s: %w", id, err)
				}
				pid, err := keeper.tryStart(id)
				if err != nil {
					return fmt.Errorf("start %s: %w", id, err)
				}
				use(pid)
				if err := keeper.endsWith(id, code); err != nil {
					return err
				}
				mu.Lock()
				execs = append(execs, id)
				mu.Unlock()
				if i%4 > 0 {
					continue
				}
				id = fmt.Sprintf("c-%d-%d", lane, i)
				// In the PID namespace of the shim its orphans are the shim's.
				short := l.prepare(id, group("few"), hostPIDs, args("sh", "-c", fmt.Sprintf("(usleep 1000; exit 78) & exit %d", code)))
				if _, err := short.tryBoot(); err != nil {
					return err
				}
				short.shim = keeper.shim
				if pid, err = short.tryInit(); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
				use(pid)
				if err := short.endsWith("", code); err != nil {
					return err
				}
				mu.Lock()
				containers = append(containers, short)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}

	last, err := os.ReadFile("/proc/loadavg")
	fmt.Printf("numbers: %d execs and %d containers, %d of which have a number that another one had; %s numbers; %s", len(execs), len(containers), again, strings.TrimSpace(string(numbers)), last)
	if err != nil || again < enough {
		t.Errorf("numbers were used again %d times, not %d: %v", again, enough, err)
	}
	for _, id := range execs {
		if err := inOrder(keeper.told("/tasks/exit", id), "/tasks/exec-added "+id, "/tasks/exec-started "+id, "/tasks/exit "+id); err != nil {
			t.Errorf("%s: %v", id, err)
			break
		}
	}
	for _, m := range containers {
		if err := inOrder(m.told("/tasks/delete", ""), "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
			t.Errorf("%s: %v", m.id, err)
			break
		}
		if err := os.RemoveAll(m.bundle); err != nil {
			t.Error(err)
		}
	}
	eventually(t, func() error { return noZombies(shim) })
	keeper.end()
}

// tryInit creates and starts the container.
func (m *member) tryInit() (pid int, err error) {
	created, err := m.tryCreate(m.ctx)
	if err != nil {
		return 0, fmt.Errorf("create: %w", err)
	}
	if _, err := m.tryStart(""); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	return int(created), nil
}

// endsWith waits for a process and deletes it; both must say that status.
func (m *member) endsWith(execID string, status int) error {
	exit, err := m.tryWait(m.ctx, execID)
	if err != nil {
		return fmt.Errorf("wait for %s %s: %w", m.id, execID, err)
	}
	deleted, err := m.tryDelete(m.ctx, execID)
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", m.id, execID, err)
	}
	if int(exit.ExitStatus) != status || int(deleted.ExitStatus) != status {
		return fmt.Errorf("%s %s ended with %d, deleted with %d, want %d", m.id, execID, exit.ExitStatus, deleted.ExitStatus, status)
	}
	return nil
}
