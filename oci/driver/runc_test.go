package driver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
	"github.com/cleatrun/cleat/oci/cgroup/metrics2"
	"github.com/cleatrun/cleat/oci/child"
	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// real is one container of the real runc.
type real struct {
	*Runtime
	t      testing.TB
	id     string
	bundle oci.Bundle
	spec   *specs.Spec
}

var containers int

// run runs a program in a way that keeps its exit from being taken for that of
// an orphan.
func run(name string, args ...string) ([]byte, error) {
	defer child.Launching()()
	return exec.Command(name, args...).CombinedOutput()
}

// newReal makes a bundle whose container runs a shell script. The spec can be
// changed before Create.
func newReal(t testing.TB, script string) *real {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to run containers")
	}
	runc, busybox := built(t, "runc"), built(t, "busybox")
	// Not t.TempDir: its paths are longer than that of a socket may be.
	dir, err := os.MkdirTemp("", "driver")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	containers++
	r := &real{t: t, id: fmt.Sprintf("cleat-test-%d-%d", os.Getpid(), containers), bundle: oci.Bundle(filepath.Join(dir, "bundle"))}
	for _, d := range []string{"bin", "proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(r.bundle.Rootfs(), d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.bundle.Rootfs(), "bin", "busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := run(busybox, "chroot", r.bundle.Rootfs(), "/bin/busybox", "--install", "/bin"); err != nil {
		t.Skipf("busybox does not run by itself: %s", out)
	}
	r.spec = &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: r.process(script),
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}}},
		Linux: &specs.Linux{
			CgroupsPath: "/" + r.id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
			Resources:   &specs.LinuxResources{},
		},
	}
	r.Runtime = New(r.bundle, "ns", oci.Options{BinaryName: runc, Root: filepath.Join(dir, "root")})
	t.Cleanup(func() {
		if err := r.Delete(context.Background(), r.id, true); err != nil {
			t.Errorf("delete in the end: %v", err)
		}
		for _, hierarchy := range []string{"", "memory", "pids", "freezer", "unified"} {
			if _, err := os.Lstat(filepath.Join("/sys/fs/cgroup", hierarchy, r.id)); err == nil {
				t.Errorf("left: cgroup %s in %q", r.id, hierarchy)
			}
		}
	})
	return r
}

// removeCgroup removes what a runc that was killed has left.
func (r *real) removeCgroup() {
	r.t.Helper()
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + r.id)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, group := range append(groups, "/sys/fs/cgroup/"+r.id) {
		eventually(r.t, "the end of "+group, func() bool {
			err := unix.Rmdir(group)
			return err == nil || err == unix.ENOENT
		})
	}
}

func (r *real) process(script string) *specs.Process {
	return &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin", "GREETING=hello"}}
}

func (r *real) writeSpec() {
	r.t.Helper()
	b, err := json.Marshal(r.spec)
	if err != nil {
		r.t.Fatal(err)
	}
	write(r.t, r.bundle.Path("config.json"), string(b))
}

// owned launches a process of the container and is its owner.
func (r *real) owned(launch func() (int, error)) (*process, error) {
	r.t.Helper()
	defer child.Launching()()
	pid, err := launch()
	if err != nil {
		return nil, err
	}
	c, err := child.Adopt(pid)
	if err != nil {
		r.t.Fatalf("the process that the runtime told of is gone: %v", err)
	}
	p := &process{Child: c, ended: make(chan struct{})}
	c.Await(func(exit child.Exit, err error) {
		p.exit, p.err = exit, err
		close(p.ended)
	})
	r.t.Cleanup(func() { c.Signal(unix.SIGKILL); p.mustEnd(r.t); c.Close() })
	return p, nil
}

type process struct {
	*child.Child
	ended chan struct{}
	exit  child.Exit
	err   error
}

func (p *process) mustEnd(t testing.TB) child.Exit {
	t.Helper()
	select {
	case <-p.ended:
		if p.err != nil {
			t.Errorf("its exit is lost: %v", p.err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	return p.exit
}

func (r *real) create(s Streams) *process {
	r.t.Helper()
	r.writeSpec()
	p, err := r.owned(func() (int, error) { return r.Create(r.t.Context(), r.id, s) })
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *real) start() {
	r.t.Helper()
	if err := r.Start(r.t.Context(), r.id); err != nil {
		r.t.Fatal(err)
	}
}

func (r *real) exec(id, script string, s Streams) (*process, error) {
	r.t.Helper()
	return r.owned(func() (int, error) { return r.Exec(r.t.Context(), r.id, id, *r.process(script), s) })
}

// status is what the runtime says of the container.
func (r *real) status() string {
	r.t.Helper()
	out, err := run(r.binary(), "--root", r.root(), "state", r.id)
	if err != nil {
		return "none"
	}
	var state struct{ Status string }
	if err := json.Unmarshal(out, &state); err != nil {
		r.t.Fatal(err)
	}
	return state.Status
}

func (r *real) mustBe(status string) {
	r.t.Helper()
	if got := r.status(); got != status {
		r.t.Errorf("the container is %s, want %s", got, status)
	}
}

// mustLeave fails the test if the bundle holds anything but what belongs there.
func (r *real) mustLeave(names ...string) {
	r.t.Helper()
	(&scripted{bundle: r.bundle}).mustLeave(r.t, append(names, "config.json", "rootfs")...)
}

// output is a pipe for a process, whose other end is read line by line.
func output(t testing.TB) (Streams, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { r.Close(); w.Close() })
	null := null(t)
	return Streams{Stdin: null.Stdin, Stdout: w, Stderr: w}, bufio.NewReader(r)
}

func mustRead(t testing.TB, from *bufio.Reader, want string) {
	t.Helper()
	if line, err := from.ReadString('\n'); strings.TrimSpace(line) != want {
		t.Errorf("read %q, %v; want %q", line, err, want)
	}
}

func TestLifeOfAContainer(t *testing.T) {
	r := newReal(t, "echo $GREETING; exec sleep 100")
	streams, out := output(t)
	init := r.create(streams)
	r.mustBe("created")
	if pid := readNumber(t, r.bundle.InitPidFile()); pid != init.PID {
		t.Errorf("init.pid names %d instead of %d", pid, init.PID)
	}
	r.start()
	r.mustBe("running")
	mustRead(t, out, "hello")

	streams, out = output(t)
	e, err := r.exec("e1", "echo in $(hostname >/dev/null && readlink /proc/self/ns/pid >/dev/null && echo exec); exit 7", streams)
	if err != nil {
		t.Fatal(err)
	}
	mustRead(t, out, "in exec")
	if exit := e.mustEnd(t); exit.Status != 7 {
		t.Errorf("exec: %+v", exit)
	}

	if err := r.Pause(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	r.mustBe("paused")
	if err := r.Resume(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	r.mustBe("running")

	limit := int64(100 << 20)
	if err := r.Update(t.Context(), r.id, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if got := memoryLimit(t, init.PID); got != uint64(limit) {
		t.Errorf("the memory limit is %d", got)
	}

	if e := failure(t, r.Delete(t.Context(), r.id, false)); !strings.Contains(e.Message, "not stopped") {
		t.Errorf("delete of a running container: %v", e)
	}
	init.Signal(unix.SIGTERM) // which the first process of a PID namespace ignores
	init.Signal(unix.SIGKILL)
	if exit := init.mustEnd(t); exit.Status != 137 || exit.Signal != unix.SIGKILL {
		t.Errorf("init: %+v", exit)
	}
	r.mustBe("stopped")
	for range 2 { // the second time of what there is not
		if err := r.Delete(t.Context(), r.id, false); err != nil {
			t.Fatal(err)
		}
	}
	r.mustBe("none")
	r.mustLeave("init.pid")
}

func memoryLimit(t testing.TB, pid int) uint64 {
	t.Helper()
	g, err := cgroup.Load(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var v1 stats1.Metrics
	var v2 stats2.Metrics
	m := map[string]proto.Message{metrics1.Name: &v1, metrics2.Name: &v2}[s.Message]
	if err := proto.Unmarshal(s.Encoded, m); err != nil {
		t.Fatal(err)
	}
	return max(v1.Memory.GetUsage().GetLimit(), v2.Memory.GetUsageLimit())
}

// Processes that end before anybody knows their pid.
func TestEarlyExitsArrive(t *testing.T) {
	r := newReal(t, "exec sleep 100")
	init := r.create(null(t))
	r.start()
	for i := range 12 {
		e, err := r.exec("e"+strconv.Itoa(i), fmt.Sprintf("exit %d", i), null(t))
		if err != nil {
			t.Fatal(err)
		}
		if exit := e.mustEnd(t); exit.Status != i {
			t.Errorf("exec: %+v, want status %d", exit, i)
		}
	}
	init.Signal(unix.SIGKILL)
	init.mustEnd(t)
	for i := range 4 {
		r := newReal(t, fmt.Sprintf("exit %d", 40+i))
		init := r.create(null(t))
		r.start()
		if exit := init.mustEnd(t); exit.Status != 40+i {
			t.Errorf("init: %+v, want status %d", exit, 40+i)
		}
		if err := r.Delete(t.Context(), r.id, false); err != nil {
			t.Error(err)
		}
	}
}

func TestTerminal(t *testing.T) {
	r := newReal(t, "tty -s && echo in a terminal")
	r.spec.Process.Terminal = true
	socket := filepath.Join(filepath.Dir(string(r.bundle)), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	init := r.create(Streams{ConsoleSocket: socket})
	listener.SetDeadline(time.Now().Add(20 * time.Second))
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 256), rights)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	unix.SetNonblock(fds[0], true)
	master := os.NewFile(uintptr(fds[0]), "terminal")
	defer master.Close()
	master.SetReadDeadline(time.Now().Add(20 * time.Second))
	r.start()
	mustRead(t, bufio.NewReader(master), "in a terminal")
	if exit := init.mustEnd(t); exit.Status != 0 {
		t.Errorf("%+v", exit)
	}
}

// The words of the real runc, as containerd's clients know them.
func TestFailuresAreToldInRuncsWords(t *testing.T) {
	r := newReal(t, "exec sleep 100")
	mustFail := func(err error, operation string, words ...string) {
		t.Helper()
		e := failure(t, err)
		for _, w := range words {
			if !strings.Contains(e.Message, w) {
				t.Errorf("%s: %q does not tell %q", operation, e.Message, w)
			}
		}
		if e.Operation != operation || e.Container != r.id || e.Status == 0 {
			t.Errorf("%+v", e)
		}
		if strings.Contains(e.Message, "did not terminate") || strings.Contains(e.Message, "level=") {
			t.Errorf("%s: these are not runc's words: %q", operation, e.Message)
		}
	}
	args := r.spec.Process.Args
	r.spec.Process.Args = []string{"/nonexistent"}
	r.writeSpec()
	for _, s := range []Streams{null(t), {ConsoleSocket: filepath.Join(filepath.Dir(string(r.bundle)), "nobody")}} {
		r.spec.Process.Terminal = s.ConsoleSocket != ""
		_, err := r.Create(t.Context(), r.id, s)
		if s.ConsoleSocket == "" {
			mustFail(err, "create", `exec: "/nonexistent"`, "no such file or directory")
		} else {
			mustFail(err, "create")
		}
		r.mustBe("none")
		r.mustLeave()
	}
	r.spec.Process.Terminal = false
	mustFail(r.Start(t.Context(), r.id), "start", "container does not exist")
	mustFail(r.Pause(t.Context(), r.id), "pause", "container does not exist")
	mustFail(r.Resume(t.Context(), r.id), "resume", "container does not exist")
	mustFail(r.Update(t.Context(), r.id, &specs.LinuxResources{}), "update", "container does not exist")
	mustFail(r.Checkpoint(t.Context(), r.id, CheckpointOptions{ImagePath: t.TempDir()}), "checkpoint", "container does not exist")
	_, err := r.exec("e", "exit 0", null(t))
	mustFail(err, "exec", "container does not exist")

	r.spec.Process.Args = args
	init := r.create(null(t))
	_, err = r.Create(t.Context(), r.id, null(t))
	mustFail(err, "create", "already exist")
	r.start()
	mustFail(r.Start(t.Context(), r.id), "start", "running")
	for _, c := range []struct {
		args  []string
		words string
	}{
		{[]string{"/nonexistent"}, "no such file or directory"},
		{[]string{"nonexistent"}, "executable file not found in $PATH"},
		{[]string{"/proc"}, "is a directory"},
		{[]string{"/proc/uptime"}, "permission denied"},
	} {
		p := r.process("")
		p.Args = c.args
		_, err := r.Exec(t.Context(), r.id, "e", *p, null(t))
		mustFail(err, "exec", c.words)
	}
	init.Signal(unix.SIGKILL)
	init.mustEnd(t)
	_, err = r.exec("e", "exit 0", null(t))
	mustFail(err, "exec", "stopped")
	mustFail(r.Pause(t.Context(), r.id), "pause")
}

func TestSpecThatRuncRefuses(t *testing.T) {
	r := newReal(t, "exit 0")
	for _, text := range []string{"", "{", "[]", `{"ociVersion":"1.0.0"}`, `{"ociVersion":"99.0.0"}`} {
		write(t, r.bundle.Path("config.json"), text)
		if _, err := r.Create(t.Context(), r.id, null(t)); failure(t, err).Status == 0 {
			t.Errorf("%q: %v", text, err)
		}
		r.mustBe("none")
	}
	os.Remove(r.bundle.Path("config.json"))
	_, err := r.Create(t.Context(), r.id, null(t))
	if e := failure(t, err); !strings.Contains(e.Message, "config.json") {
		t.Errorf("no spec: %v", e)
	}
	r.mustLeave()
}

// A hook is a program of the host's; it may fail, or never end.
func TestHookThatFails(t *testing.T) {
	r := newReal(t, "exec sleep 100")
	r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo the network is down >&2; exit 3"}}}}
	r.writeSpec()
	_, err := r.Create(t.Context(), r.id, null(t))
	if e := failure(t, err); !strings.Contains(e.Message, "the network is down") || !strings.Contains(e.Message, "hook") {
		t.Errorf("%v", e)
	}
	r.mustBe("none")
	r.mustLeave()
}

func TestHookThatHangs(t *testing.T) {
	r := newReal(t, "exec sleep 100")
	told := filepath.Join(filepath.Dir(string(r.bundle)), "hook.pid")
	r.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo $$ >" + told + "; sleep 100"}}}}
	r.writeSpec()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		readNumber(t, told)
		cancel() // as the time limit would
	}()
	_, err := r.Create(ctx, r.id, null(t))
	if e := failure(t, err); !errors.Is(e, context.Canceled) || e.Status != 137 {
		t.Errorf("%v", e)
	}
	hook := readNumber(t, told)
	eventually(t, "the end of the hook", func() bool { return !running(hook) })
	if err := r.Delete(t.Context(), r.id, true); err != nil {
		t.Error(err)
	}
	r.mustBe("none")
	os.Remove(r.bundle.InitPidFile())
	r.mustLeave()
	// runc had not noted its cgroup yet, and cannot remove it; see cgroup.Remove.
	r.removeCgroup()
}

func TestFeaturesOfRunc(t *testing.T) {
	r := New("", "", oci.Options{BinaryName: built(t, "runc")})
	b, err := r.Features(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ OCIVersionMax string }
	if err := json.Unmarshal(b, &f); err != nil || f.OCIVersionMax == "" {
		t.Errorf("%s, %v", b, err)
	}
}

// A container is written to an image and made anew from it: it goes on counting
// where it was.
func TestCheckpointAndRestore(t *testing.T) {
	criu := built(t, filepath.Join("borrowed", "criu"))
	t.Setenv("PATH", filepath.Dir(criu)+":"+os.Getenv("PATH"))
	if out, err := run(criu, "check"); err != nil {
		t.Skipf("CRIU does not work here: %s", out)
	}
	r := newReal(t, `i=0; while :; do i=$((i+1)); echo $i >/tmp/count.new; mv /tmp/count.new /tmp/count; sleep 0.01; done`)
	count := filepath.Join(r.bundle.Rootfs(), "tmp", "count")
	image := filepath.Join(filepath.Dir(string(r.bundle)), "image")
	streams, _ := output(t)
	streams.Stdin = streams.Stdout
	init := r.create(streams)
	r.start()
	readNumber(t, count)

	if err := r.Checkpoint(t.Context(), r.id, CheckpointOptions{ImagePath: image}); err != nil {
		t.Fatal(err)
	}
	r.mustBe("running")
	before := readNumber(t, count)
	eventually(t, "that it goes on", func() bool { return readNumber(t, count) > before })

	if err := os.RemoveAll(image); err != nil {
		t.Fatal(err)
	}
	if err := r.Checkpoint(t.Context(), r.id, CheckpointOptions{ImagePath: image, Exit: true}); err != nil {
		t.Fatal(err)
	}
	if exit := init.mustEnd(t); exit.Status != 137 {
		t.Errorf("%+v", exit)
	}
	r.mustBe("none")
	if err := r.Delete(t.Context(), r.id, false); err != nil {
		t.Errorf("delete of what the runtime has forgotten: %v", err)
	}

	before = readNumber(t, count)
	os.Remove(count)
	restored, err := r.owned(func() (int, error) {
		return r.Restore(t.Context(), r.id, RestoreOptions{ImagePath: image}, streams)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.mustBe("running")
	if after := readNumber(t, count); after < before || after > before+1000 {
		t.Errorf("it counts on from %d at %d", before, after)
	}
	r.mustLeave("init.pid")
	restored.Signal(unix.SIGKILL)
	if exit := restored.mustEnd(t); exit.Status != 137 {
		t.Errorf("%+v", exit)
	}
}

// The restored process ends before anybody knows its pid.
func TestEarlyExitOfARestoreArrives(t *testing.T) {
	criu := built(t, filepath.Join("borrowed", "criu"))
	t.Setenv("PATH", filepath.Dir(criu)+":"+os.Getenv("PATH"))
	if out, err := run(criu, "check"); err != nil {
		t.Skipf("CRIU does not work here: %s", out)
	}
	r := newReal(t, `echo ready; until [ -e /tmp/go ]; do :; done; exit 5`)
	image := filepath.Join(filepath.Dir(string(r.bundle)), "image")
	streams, out := output(t)
	streams.Stdin = streams.Stdout
	init := r.create(streams)
	r.start()
	mustRead(t, out, "ready")
	if err := r.Checkpoint(t.Context(), r.id, CheckpointOptions{ImagePath: image, Exit: true}); err != nil {
		t.Fatal(err)
	}
	init.mustEnd(t)
	write(t, filepath.Join(r.bundle.Rootfs(), "tmp", "go"), "")
	restored, err := r.owned(func() (int, error) {
		return r.Restore(t.Context(), r.id, RestoreOptions{ImagePath: image}, streams)
	})
	if err != nil {
		t.Fatal(err)
	}
	if exit := restored.mustEnd(t); exit.Status != 5 {
		t.Errorf("%+v", exit)
	}
}

func TestFailureOfTheRealCRIUIsTold(t *testing.T) {
	criu := built(t, filepath.Join("borrowed", "criu"))
	t.Setenv("PATH", filepath.Dir(criu)+":"+os.Getenv("PATH"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	listener.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	// A connection, which CRIU leaves alone unless it is told not to.
	r := newReal(t, fmt.Sprintf(`mkfifo /tmp/fifo; exec nc 127.0.0.1 %d <>/tmp/fifo`, listener.Addr().(*net.TCPAddr).Port))
	streams, _ := output(t)
	streams.Stdin = streams.Stdout
	r.create(streams)
	r.start()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	image := filepath.Join(filepath.Dir(string(r.bundle)), "image")
	e := failure(t, r.Checkpoint(t.Context(), r.id, CheckpointOptions{ImagePath: image}))
	if !strings.Contains(e.Message, "criu failed") || !strings.Contains(e.Message, "Error (criu/") {
		t.Errorf("%s", e.Message)
	}
	log, err := os.ReadFile(r.bundle.Path(dumpLog))
	if err != nil || !bytes.Contains(log, []byte("--tcp-established")) {
		t.Errorf("the kept log does not tell of the connection: %v", err)
	}
	r.mustBe("running")
	_, err = r.Restore(t.Context(), r.id+"-2", RestoreOptions{ImagePath: image + "-nonexistent"}, streams)
	if failure(t, err).Message == "" {
		t.Error("no words")
	}
	r.mustLeave("init.pid", dumpLog, restoreLog)
}
