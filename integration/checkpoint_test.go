package integration

// Checkpoint and restore, by way of the OCI runtime and CRIU.

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatrun/cleat/integration/tools"
)

// criu is the folder of a CRIU that works on this kernel.
var criu = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	dir, err := tools.EnsureBorrowed(ctx, os.Stdout)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "criu"), "check")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("criu check: %w: %s", err, tail(string(out), 3))
	}
	return dir, nil
})

// withCRIU is a lone whose shims find CRIU.
func withCRIU(t *testing.T) (l *lone, path string) {
	t.Helper()
	dir, err := criu()
	if err != nil {
		t.Skipf("no CRIU: %v", err)
	}
	l = newLone(t)
	return l, "PATH=" + strings.Join([]string{programs.Dir, dir, os.Getenv("PATH")}, ":")
}

// counter counts in memory only, and says where it is when it is asked. What it
// says after a restore shows that it was not begun anew.
func counter(s *specs.Spec) {
	s.Process.Args = []string{"sh", "-c", "n=0; trap 'echo $n; exit 5' TERM; while [ $n -lt 1000 ]; do n=$((n+1)); done; while :; do sleep 1000 & wait; done"}
	// CRIU dumps neither the cgroup nor the devices of a bare host's mounts.
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
}

func (m *member) tryCheckpoint(path string, o *runcoptions.CheckpointOptions) error {
	m.t.Helper()
	r := &task.CheckpointTaskRequest{ID: m.id, Path: path}
	if o != nil {
		r.Options = packed(m.t, o)
	}
	_, err := m.shim.Checkpoint(m.ctx, r)
	return errgrpc.ToNative(err)
}

// restored makes a second member from a checkpoint of a first.
func (l *lone) restored(id, path, image string, change ...func(*specs.Spec)) *member {
	l.t.Helper()
	m := l.prepare(id, append(change, counter)...)
	m.boot(path)
	m.request.Checkpoint = image
	return m
}

// A checkpoint leaves the container as it is; a container that is restored from
// it goes on where the first one was. Its process is not there before Start.
// Stock fails: a checkpoint is not told.
func TestCheckpointAndRestore(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("checkpoint", counter).boot(path)
	m.run()
	m.counted()
	image := filepath.Join(t.TempDir(), "image")
	if err := m.tryCheckpoint(image, nil); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	m.is("", tasktypes.Status_RUNNING)
	events := m.told("/tasks/checkpointed", "")
	if err := inOrder(events, "/tasks/create", "/tasks/start", "/tasks/checkpointed"); err != nil {
		t.Error(err)
	}
	m.end()

	r := l.restored("restore", path, image)
	out := newTap(t)
	r.request.Stdout, r.request.Stderr = out.path, newTap(t).path
	if pid := r.create(); pid != 0 {
		t.Errorf("a container to be restored has the process %d", pid)
	}
	r.is("", tasktypes.Status_CREATED)
	if _, err := r.shim.Exec(l.ctx, r.execRequest("e", "true")); err == nil {
		t.Error("an exec is added to a container that is not restored yet")
	}
	if _, err := r.shim.Pause(l.ctx, &task.PauseRequest{ID: r.id}); err == nil {
		t.Error("a container that is not restored yet is paused")
	}
	pid := r.start("")
	r.is("", tasktypes.Status_RUNNING)
	r.exec("e", "sh", "-c", "exit 4")
	if status := r.wait("e"); status != 4 {
		t.Errorf("an exec in the restored container ended with %d, want 4", status)
	}
	r.delete("e")
	r.ask()
	if status := r.wait(""); status != 5 {
		t.Errorf("the restored container ended with %d, want 5", status)
	}
	r.finish()
	events = r.told("/tasks/delete", "")
	if err := inOrder(events, "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
	if e := events[indexOf(events, "/tasks/exit", "")]; int(e.PID) != pid {
		t.Errorf("told is %s, want pid %d", e, pid)
	}
}

// counted waits until a counter has counted.
func (m *member) counted() {
	m.t.Helper()
	pid := int(m.state("").Pid)
	eventually(m.t, func() error {
		if pids := cgroupPIDs(m.t, pid); len(pids) < 2 {
			return fmt.Errorf("%s has the processes %v", m.id, pids)
		}
		return nil
	})
}

// With exit the container ends by its checkpoint, and the runtime forgets it.
// Delete must not mind.
func TestCheckpointWithExit(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("checkpoint-exit", counter)
	m.options.CriuWorkPath = l.Path("criu-work")
	if err := os.Mkdir(m.options.CriuWorkPath, 0o700); err != nil {
		t.Fatal(err)
	}
	m.boot(path)
	m.run()
	m.counted()
	image := filepath.Join(t.TempDir(), "image")
	if err := m.tryCheckpoint("", &runcoptions.CheckpointOptions{Exit: true, ImagePath: image, WorkPath: l.Path("criu-work")}); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	if status := m.wait(""); status != 137 {
		t.Errorf("the container ended with %d, want 137", status)
	}
	if _, err := os.Stat(l.Path("criu-work", "dump.log")); err != nil {
		t.Errorf("CRIU's log is not where it was asked for: %v", err)
	}
	m.finish()
	if err := inOrder(m.told("/tasks/delete", ""), "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
		t.Error(err)
	}
	r := l.restored("restore-exit", path, image)
	r.run()
	r.end()
}

// A paused container can be written, too, and stays paused.
func TestCheckpointOfAPausedContainer(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("checkpoint-paused", counter).boot(path)
	m.run()
	m.counted()
	m.pause()
	if err := m.tryCheckpoint(filepath.Join(t.TempDir(), "image"), nil); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	m.is("", tasktypes.Status_PAUSED)
	m.resume()
	m.end()
}

// The client is told why CRIU has failed, in CRIU's words, and where its log
// is. The container goes on.
func TestCheckpointThatFailsIsToldInCRIUsWords(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	// CRIU writes no connections unless it is told to. This one is in the host's
	// network.
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := l.prepare("checkpoint-fails", args("sh", "-c",
		fmt.Sprintf("trap 'exit 5' TERM; sleep 1000 | nc 127.0.0.1 %d & wait; sleep 1000 & wait", listener.Addr().(*net.TCPAddr).Port))).boot(path)
	m.run()
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(soon))
	connection, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err = m.tryCheckpoint(filepath.Join(t.TempDir(), "image"), nil); err == nil {
		t.Fatal("a container with a connection is written to an image")
	}
	log := filepath.Join(m.bundle, "criu-dump.log")
	text, failed := os.ReadFile(log)
	if failed != nil {
		t.Fatalf("CRIU's log is not kept: %v", failed)
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error (") {
			last = strings.TrimSpace(line)
		}
	}
	if last == "" || !onStock() && !strings.Contains(err.Error(), last) || !strings.Contains(err.Error(), log) {
		t.Errorf("the failure is told as\n%v\nwant %q and %q in it", err, last, log)
	}
	m.is("", tasktypes.Status_RUNNING)
	connection.Close()
	eventually(t, func() error { return m.tryCheckpoint(filepath.Join(t.TempDir(), "image"), nil) })
	m.end()
	events := m.told("/tasks/delete", "")
	if err := inOrder(events, "/tasks/start", "/tasks/checkpointed", "/tasks/exit"); err != nil {
		t.Error(err)
	}
}

// A restore that fails is told in the same way, and leaves nothing.
func TestRestoreThatFailsIsToldInCRIUsWords(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("image", counter).boot(path)
	m.run()
	m.counted()
	image := filepath.Join(t.TempDir(), "image")
	if err := m.tryCheckpoint(image, nil); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	m.end()
	if err := os.Remove(filepath.Join(image, "core-1.img")); err != nil {
		t.Fatal(err)
	}
	r := l.restored("restore-fails", path, image)
	r.create()
	_, err := r.tryStart("")
	if err == nil {
		t.Fatal("a container is restored from half of an image")
	}
	if log := filepath.Join(r.bundle, "criu-restore.log"); !onStock() {
		if !strings.Contains(err.Error(), log) || !strings.Contains(err.Error(), "Error (") {
			t.Errorf("the failure does not tell where CRIU's log is: %v", err)
		}
		if _, err := os.Stat(log); err != nil {
			t.Errorf("CRIU's log is not kept: %v", err)
		}
	}
	if _, err := r.tryDelete(l.ctx, ""); err != nil && !errdefs.IsNotFound(err) {
		t.Errorf("delete what could not be restored: %v", err)
	}
	r.shutdown()
	r.clean()
	if events := l.sink.Of(r.id); indexOf(events, "/tasks/exit", "") >= 0 || indexOf(events, "/tasks/start", "") >= 0 {
		t.Errorf("a start or exit is told of what could not be restored:\n%s", eventLines(events))
	}
}

// Trap 6 once more: what is restored ends before the runtime has told its pid,
// by a signal or by itself.
func TestTrap6RestoredProcessThatDiesDuringStart(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("trap6-restore", counter).boot(path)
	m.run()
	m.counted()
	image := filepath.Join(t.TempDir(), "image")
	if err := m.tryCheckpoint(image, nil); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	m.end()
	for signal, want := range map[string]int{"KILL": 137, "TERM": 5} {
		r := l.restored("trap6-restored-"+signal, path, image)
		r.options.BinaryName = scripted(t, fmt.Sprintf(`case $command in restore)
	runc "$@" || exit
	pid=$(cat $pidfile)
	kill -%s $pid
	dead $pid
	exit;;
esac`, signal))
		r.create()
		r.start("")
		if status := r.wait(""); status != want {
			t.Errorf("what was restored ended by SIG%s with %d, want %d", signal, status, want)
		}
		r.is("", tasktypes.Status_STOPPED)
		if status := r.finish(); status != want {
			t.Errorf("after SIG%s Delete says %d, want %d", signal, status, want)
		}
		if err := inOrder(r.told("/tasks/delete", ""), "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
			t.Error(err)
		}
	}
}

// A container whose output goes to a client can be written and restored, and
// what it says then comes to the client of then.
func TestCheckpointOfAContainerWithAClient(t *testing.T) {
	t.Parallel()
	l, path := withCRIU(t)
	m := l.prepare("checkpoint-client", counter).boot(path)
	first := newTap(t)
	m.request.Stdout, m.request.Stderr = first.path, newTap(t).path
	m.run()
	m.counted()
	image := filepath.Join(t.TempDir(), "image")
	if err := m.tryCheckpoint(image, nil); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	m.ask()
	m.wait("")
	if got := first.all(); got != "1000\n" {
		t.Errorf("the first container said %q", got)
	}
	m.finish()

	r := l.restored("restore-client", path, image)
	second := newTap(t)
	r.request.Stdout, r.request.Stderr = second.path, newTap(t).path
	r.run()
	r.ask()
	if status := r.wait(""); status != 5 {
		t.Errorf("the restored container ended with %d, want 5", status)
	}
	if got := second.all(); got != "1000\n" {
		t.Errorf("the restored container said %q", got)
	}
	r.finish()
}
