package integration

// A shim that is out of something: room on the disk, descriptors, a cgroup that
// can go.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// smallDisk is a filesystem with little room.
type smallDisk struct {
	t   *testing.T
	dir string
}

func newSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	d := smallDisk{t: t, dir: t.TempDir()}
	if err := unix.Mount("small", d.dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

// fill leaves no room for a byte.
func (d smallDisk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "full"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d smallDisk) clear() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "full")); err != nil {
		d.t.Fatal(err)
	}
}

// A bundle in which nothing can be written: what needs it fails and says why,
// leaves nothing, and can be asked again. The exit is told in any case.
func TestFullDiskIsToldAndLosesNoExit(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	l := newLone(t)
	other := l.member("room", group("disk")).run()
	disk := newSmallDisk(t)
	m := l.prepareIn(filepath.Join(disk.dir, "b"), "no-room", group("disk"), args("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"))
	m.boot()
	shim := m.shimPID()
	before := len(descriptors(t, shim))

	disk.fill()
	if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("create without room: %v", err)
	}
	if _, err := m.shim.State(l.ctx, &task.StateRequest{ID: m.id}); err == nil || !strings.Contains(err.Error(), "not created") {
		t.Errorf("state after a failed create: %v", err)
	}
	eventually(t, func() error {
		if now := len(descriptors(t, shim)); now > before {
			return fmt.Errorf("%d descriptors, %d before", now, before)
		}
		return nil
	})
	disk.clear()
	m.run()

	disk.fill()
	other.exec("e", "sh", "-c", "exit 3") // it does not mind
	if status := other.wait("e"); status != 3 {
		t.Errorf("an exec of another container ended with %d", status)
	}
	m.add(m.execRequest("e", "true"))
	if _, err := m.tryStart("e"); err == nil {
		m.wait("e")
	} else if !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("exec without room: %v", err)
	}
	m.delete("e")
	m.ask()
	if status := m.wait(""); status != 7 {
		t.Errorf("without room the container ended with %d, want 7", status)
	}
	if status := m.delete(""); status != 7 {
		t.Errorf("Delete says %d, want 7", status)
	}
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
	m.clean()
	other.end()
}

// A container ends while nothing can be written, and its shim is killed before
// anybody has asked for it. Room for the record is taken when there is some: by
// Create, or by another program of the shim if the one before did not know of it.
func TestExitOnAFullDiskOutlivesItsShim(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	for _, who := range []string{"create", "upgrade"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			l := newLone(t)
			disk := newSmallDisk(t)
			m := l.prepareIn(filepath.Join(disk.dir, "b"), "recorded", args("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done"))
			m.boot()
			m.run()
			shim := m.shimPID()
			if who == "upgrade" {
				if err := os.Remove(filepath.Join(m.bundle, ".exit.json-room")); err != nil {
					t.Fatal(err)
				}
				upgradeTo(t, m.shim, programs.Shim)
			}
			disk.fill()
			m.ask()
			if status := m.wait(""); status != 7 {
				t.Errorf("without room the container ended with %d, want 7", status)
			}
			if err := unix.Kill(shim, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.shim.Close()
			eventually(t, func() error { return aliveNot(shim) })
			if response := m.clean(); response != nil && response.ExitStatus != 7 {
				t.Errorf("of a shim that was killed `delete` says %d, want 7", response.ExitStatus)
			}
		})
	}
}

// limit bounds a resource of a process, which may have ended, and returns what
// undoes it.
func limit(t *testing.T, pid, resource int, most uint64) (undo func()) {
	t.Helper()
	var old unix.Rlimit
	err := unix.Prlimit(pid, resource, nil, &old)
	if err == nil {
		err = unix.Prlimit(pid, resource, &unix.Rlimit{Cur: most, Max: old.Max}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := unix.Prlimit(pid, resource, &old, nil); err != nil && err != unix.ESRCH {
			t.Fatal(err)
		}
	}
}

// highest is the highest descriptor of a process.
func highest(t *testing.T, pid int) (most uint64) {
	t.Helper()
	links, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		n, err := strconv.ParseUint(link.Name(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
	}
	return most
}

// However few descriptors there are, an exec runs to its end or fails with the
// reason; nothing is left of either, and nothing else minds.
func TestShimWithoutDescriptorsFailsAloneAndRecovers(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	l := newLone(t)
	m := l.member("few").run()
	m.exec("first", "true") // from here on there is what is opened once
	m.wait("first")
	m.delete("first")
	m.mark()
	shim := m.shimPID()
	before := len(descriptors(t, shim))
	failed := 0
	const most = 39
	step := uint64(1)
	if testing.Short() {
		step = 4
	}
	tried := 0
	for room := uint64(1); room <= most; room += step {
		tried++
		undo := limit(t, shim, unix.RLIMIT_NOFILE, highest(t, shim)+room)
		id := fmt.Sprint("exec-", room)
		m.add(m.execRequest(id, "sh", "-c", "exit 3"))
		_, err := m.tryStart(id)
		m.is("", tasktypes.Status_RUNNING)
		undo()
		switch {
		case err == nil:
			if status := m.wait(id); status != 3 {
				t.Errorf("room for %d: it ended with %d, want 3", room, status)
			}
		case !strings.Contains(err.Error(), "too many open files"):
			t.Errorf("room for %d: %v", room, err)
		default:
			failed++
		}
		m.delete(id)
	}
	if failed == 0 {
		t.Error("there was always room")
	}
	t.Logf("%d of %d did not start", failed, tried)
	eventually(t, func() error {
		if now := descriptors(t, shim); len(now) > before {
			return fmt.Errorf("%d descriptors, %d before: %s", len(now), before, lines(now))
		}
		return nil
	})

	// Who connects meanwhile is served when it can be.
	undo := limit(t, shim, unix.RLIMIT_NOFILE, 3)
	late := &member{lone: l, id: m.id}
	late.dial(m.shim.Address)
	m.is("", tasktypes.Status_RUNNING)
	m.kill("", unix.SIGKILL)
	if status := m.wait(""); status != 137 {
		t.Errorf("it ended with %d, want 137", status)
	}
	undo()
	late.is("", tasktypes.Status_STOPPED)
	late.shim.Close()
	m.finish()
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
}

// Somebody else's process is in a container's cgroup. It is not killed; that the
// cgroup stays is told, and it goes when it can.
func TestCgroupThatIsInUseIsToldAndRemovedLater(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	l := newLone(t)
	m := l.member("busy").run()
	init := int(m.state("").Pid)
	dirs := cgroupDirs(t, init)
	squatter := exec.Command(programs.Busybox, "sleep", "1000")
	if err := squatter.Start(); err != nil {
		t.Fatal(err)
	}
	defer squatter.Wait()
	defer squatter.Process.Kill()
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(squatter.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	m.kill("", unix.SIGKILL)
	if status := m.wait(""); status != 137 {
		t.Errorf("it ended with %d, want 137", status)
	}
	began := time.Now()
	_, err := m.tryDelete(l.ctx, "")
	t.Logf("after %s: %v", time.Since(began), err)
	if err == nil {
		t.Fatal("deleted with a cgroup in use")
	}
	if errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "cgroup") {
		t.Errorf("Delete with a cgroup in use: %v", err)
	}
	if err := aliveNot(squatter.Process.Pid); err == nil {
		t.Error("the process is killed")
	}
	squatter.Process.Kill()
	squatter.Wait()
	if status := m.finish(); status != 137 {
		t.Errorf("Delete says %d, want 137", status)
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// cgroupDirs are the folders of the cgroups of a process, which has its own.
func cgroupDirs(t *testing.T, pid int) (dirs []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(parts[1], "name="), parts[2])
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) == 0 {
		t.Fatalf("process %d has no cgroup of its own: %s", pid, text)
	}
	return dirs
}

// A probe that fails again and again, mistyped or refused by its program, leaves
// nothing in the bundle, which is in memory; stock's log there grows until /run is
// full (#8972).
func TestFailingProbesFillNothing(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("probes").run()
	list := func() (entries []string) {
		t.Helper()
		err := filepath.WalkDir(m.bundle, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err == nil && info.Mode().IsRegular() {
				path += fmt.Sprintf(" %d bytes", info.Size())
			}
			entries = append(entries, path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	probe := func(id string) {
		t.Helper()
		m.add(m.execRequest(id, "/no/such/probe", strings.Repeat("with many words ", 500)))
		if _, err := m.tryStart(id); err == nil || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("%s: %v", id, err)
		}
		m.delete(id)
	}
	probe("first")
	before := list()
	for i := range rounds(t, upgrades(t, 20), 10*time.Second) {
		probe(fmt.Sprint("probe-", i))
	}
	if after := list(); !slices.Equal(after, before) {
		t.Errorf("the bundle holds\n%s\nand held\n%s", lines(after), lines(before))
	}
	m.end()
}
