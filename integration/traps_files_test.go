package integration

// The traps of files and of their names.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Names of execs become names of files in the bundle. Stock fails: it takes
// them all.
func TestTrap20ExecIDsThatAreNoFileNames(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap20")
	pid := m.create()
	m.start("")
	for _, id := range []string{"init", "..", ".", "a/b", "../trap20/init", "/etc/passwd", "a\x00b", "a b", "trap20", strings.Repeat("x", 200)} {
		_, err := m.shim.Exec(m.ctx, m.execRequest(id, "true"))
		if err = errgrpc.ToNative(err); !errdefs.IsInvalidArgument(err) {
			t.Errorf("exec id %q gives %v, want an invalid argument", id, err)
		}
		if err == nil {
			if _, err := m.tryStart(id); err == nil {
				m.wait(id)
			}
			m.tryDelete(m.ctx, id)
		}
	}
	text, err := os.ReadFile(filepath.Join(m.bundle, "init.pid"))
	if err != nil || string(text) != strconv.Itoa(pid) {
		t.Errorf("init.pid is %q, want %d: %v", text, pid, err)
	}
	m.end()
}

// Of calls to the runtime that fail at the same time each has to tell its own
// failure. Nothing in the bundle may grow with their number. Stock fails: an
// exec is told the error of another, and the log grows.
func TestTrap21ConcurrentFailuresOfTheRuntimeAreToldEachToItsCaller(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap21").run()
	before := files(t, m.bundle)
	var all errgroup.Group
	all.SetLimit(8)
	for i := range 24 {
		all.Go(func() error {
			id, program := fmt.Sprint("e", i), fmt.Sprintf("/no/program-%d-", i)
			if _, err := m.shim.Exec(m.ctx, m.execRequest(id, program)); err != nil {
				return err
			}
			_, err := m.tryStart(id)
			if err == nil || !strings.Contains(err.Error(), program) {
				return fmt.Errorf("the failure of %s is told as: %v", program, err)
			}
			_, err = m.tryDelete(m.ctx, id)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if after := files(t, m.bundle); !slices.Equal(before, after) {
		t.Errorf("the bundle holds\n%s\nand before the execs held\n%s", lines(after), lines(before))
	}
	m.end()
}

// files lists the regular files below a folder with their sizes.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			list = append(list, fmt.Sprintf("%s (%d bytes)", entry.Name(), info.Size()))
		}
	}
	return list
}

// A shim is killed while the runtime is about to start an exec on a terminal,
// so that nobody removes the files for that. What is left shows at the end.
// Stock fails: it leaves them.
func TestTrap22KilledShimLeavesNoTemporaryFiles(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	g := newGate(t)
	m := l.member("trap22")
	m.options.BinaryName = scripted(t, `[ "$command" = exec ] && `+g.wait())
	m.run()
	out := newTap(t)
	r := m.execRequest("tty", "true")
	r.Terminal, r.Stdout = true, out.path
	m.add(r)
	go m.tryStart("tty") // ends with the shim
	g.reached()
	if err := unix.Kill(m.shimPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.clean()
	g.let()
}

// containerd runs `delete` when the connection is gone, which may be while the
// shim is at it, too, and after the bundle has gone. Stock fails: delete does
// not work in a folder that is gone.
func TestTrap23DeleteRunsBesideTheShimAndAfterTheBundle(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	g := newGate(t)
	m := l.member("trap23", args("sh", "-c", "exit 7"))
	m.options.BinaryName = scripted(t, `[ "$command" = delete ] && [ ! -e $0.once ] && { >$0.once; `+g.wait()+`; }`)
	pid := m.create()
	m.start("")
	m.wait("")
	deleted := make(chan error, 1)
	go func() {
		_, err := m.tryDelete(l.ctx, "")
		deleted <- err
	}()
	g.reached()
	var both errgroup.Group
	for range 2 {
		both.Go(func() error {
			response, err := m.deleteAction()
			if err == nil && (response.ExitStatus != 7 || int(response.Pid) != pid) {
				err = fmt.Errorf("delete beside the shim says status %d pid %d, want 7 and %d", response.ExitStatus, response.Pid, pid)
			}
			return err
		})
	}
	if err := both.Wait(); err != nil {
		t.Error(err)
	}
	g.let()
	if err := <-deleted; err != nil {
		t.Errorf("Delete beside the action: %v", err)
	}
	m.shutdown()

	dir, err := os.Open(m.bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	m.clean()
	for _, more := range [][]string{{"-bundle", m.bundle}, nil} {
		cmd := m.action("delete", more...)
		cmd.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), dir.Fd())
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || stderr.Len() > 0 && !onStock() {
			t.Errorf("delete %v in a folder that is gone: %v: %s", more, err, stderr.Bytes())
		}
		if err := proto.Unmarshal(stdout.Bytes(), &task.DeleteResponse{}); err != nil {
			t.Errorf("delete %v in a folder that is gone answered %q: %v", more, stdout.Bytes(), err)
		}
	}
}

// containerd removes bundles that it could not load. Stock fails: Pids and Kill
// do not work without the bundle's log.json.
func TestTrap24ShimOutlivesItsBundle(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap24")
	pid := m.create()
	m.start("")
	if err := os.RemoveAll(m.bundle); err != nil {
		t.Fatal(err)
	}
	m.is("", tasktypes.Status_RUNNING)
	if response, err := m.shim.Pids(within(t, soon), &task.PidsRequest{ID: m.id}); err != nil || len(response.Processes) == 0 {
		t.Errorf("pids: %v, %v", response, err)
	}
	if _, err := m.shim.Stats(within(t, soon), &task.StatsRequest{ID: m.id}); err != nil {
		t.Errorf("stats: %v", err)
	}
	m.ask()
	if status := m.wait(""); status != 9 {
		t.Errorf("the container ended with %d, want 9", status)
	}
	if status := m.delete(""); status != 9 {
		t.Errorf("Delete says %d, want 9", status)
	}
	if err := aliveNot(pid); err != nil {
		t.Error(err)
	}
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
	shim := m.shimPID()
	m.shutdown()
	eventually(t, func() error { return aliveNot(shim) })
}

// A socket's path has at most 107 bytes (unix(7)).
func TestTrap25ConsoleSocketInABundleWithALongPath(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	id := strings.Repeat("trap25-", 10) + "bundle" // 76 characters, containerd's limit
	folder := l.Path("bundles", strings.Repeat("long-", 20))
	m := l.prepareIn(filepath.Join(folder, id), id, args("sh", "-c", "tty; trap 'exit 9' TERM; sleep 1000 & wait")).boot()
	init, exec := newTap(t), newTap(t)
	m.request.Terminal, m.request.Stdout = true, init.path
	spec := l.spec(id)
	spec.Process.Args = []string{"sh", "-c", "tty; trap 'exit 9' TERM; sleep 1000 & wait"}
	spec.Process.Terminal = true
	m.writeSpec(spec)
	m.run()
	init.expect("/dev/pts/")
	r := m.execRequest("tty", "tty")
	r.Terminal, r.Stdout = true, exec.path
	m.add(r)
	m.start("tty")
	exec.expect("/dev/pts/")
	m.wait("tty")
	m.delete("tty")
	m.end()
	os.RemoveAll(folder)
}

// What `start` has seen of the spec may be another one's by the time of Create.
func TestTrap26SpecIsReadInCreate(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap26")
	spec := l.spec(m.id)
	spec.Process.Args = []string{"sh", "-c", "trap 'exit 9' TERM; sleep 1000 & sleep 1000 & wait"}
	hostPIDs(spec)
	m.writeSpec(spec)
	init := m.create()
	m.start("")
	var pids []int
	eventually(t, func() error {
		if pids = cgroupPIDs(t, init); len(pids) < 3 {
			return fmt.Errorf("the container has the processes %v", pids)
		}
		return nil
	})
	m.kill("", unix.SIGTERM)
	if status := m.wait(""); status != 9 {
		t.Errorf("the container ended with %d, want 9", status)
	}
	// Without a PID namespace of its own, which only the new spec tells, the
	// shim has to end these.
	for _, pid := range pids {
		eventually(t, func() error { return aliveNot(pid) })
	}
	m.finish()
}

// The shim is replaced on the host while containers run: the new one's `delete`
// meets the old one's bundles, and the other way round after a downgrade.
func TestTrap45DeleteCleansUpBundlesOfTheOtherShim(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	shims := map[string]string{"cleat": programs.Shim, "stock": programs.StockShim}
	for made, maker := range shims {
		for _, ended := range []bool{false, true} {
			deleter := shims["stock"]
			if made == "stock" {
				deleter = shims["cleat"]
			}
			m := l.prepare(fmt.Sprintf("trap45-%s-%t", made, ended))
			m.program = maker
			m.options.Root = l.Path("runc")
			m.boot()
			pid := m.create()
			m.start("")
			want := 137
			if ended {
				want = 9
				m.ask()
				m.wait("")
				if made == "stock" { // which tells before it has written it down
					eventually(t, func() error { _, err := os.Stat(filepath.Join(m.bundle, "exit.json")); return err })
				}
			}
			shim := m.shimPID()
			if err := unix.Kill(shim, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error { return aliveNot(shim) })
			m.program = deleter
			response := m.clean()
			if response == nil || int(response.Pid) != pid || int(response.ExitStatus) != want {
				t.Errorf("%s: the other shim's delete says %v, want pid %d and status %d", m.id, response, pid, want)
			}
			eventually(t, func() error { return aliveNot(pid) })
			if left, _ := filepath.Glob(filepath.Join(m.options.Root, "*", m.id)); len(left) > 0 {
				t.Errorf("the other shim's delete leaves %v", left)
			}
			if deleter == programs.StockShim { // which never removes a dead socket
				os.Remove(m.shim.Address)
			}
		}
	}
}
