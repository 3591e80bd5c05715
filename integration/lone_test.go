package integration

// Shims without a containerd: the test plays its part. It makes the bundle, runs
// the shim's actions, takes the events and calls the RPCs, so it can do all that
// at the wrong moment. The shim is that of the runtime under test, so the same
// tests run on containerd's own.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/place"
)

// soon bounds what takes milliseconds, on the slowest machine; loneTime bounds a
// test with all its rounds.
const (
	soon     = 30 * time.Second
	loneTime = 3 * time.Minute
)

// onStock tells that the tests run against containerd's own shim.
func onStock() bool { return runtimeName != ourRuntime }

// shimProgram is the shim under test.
func shimProgram() string {
	if onStock() {
		return programs.StockShim
	}
	return programs.Shim
}

// within is a context of a part of a test.
func within(t *testing.T, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// rounds counts up to n, to provoke what happens once in a while. On a slow
// machine it stops when budget is used up, but not before the third.
func rounds(t *testing.T, n int, budget time.Duration) iter.Seq[int] {
	return func(yield func(int) bool) {
		began := time.Now()
		for i := range n {
			if i >= 3 && time.Since(began) > budget {
				t.Logf("%d of %d rounds in %s", i, n, budget)
				return
			}
			if !yield(i) {
				return
			}
		}
	}
}

// lone is a place with shims that no containerd knows.
type lone struct {
	*place.Place
	t    *testing.T
	ctx  context.Context
	sink *daemon.Sink

	mu   sync.Mutex // guards logs
	logs bytes.Buffer
}

// newLone makes the place. When the test has passed, nothing may be left in it.
func newLone(t *testing.T) *lone {
	t.Helper()
	p, err := place.New()
	if err != nil {
		t.Fatal(err)
	}
	l := &lone{Place: p, t: t, ctx: within(t, loneTime), sink: daemon.NewSink(p.Path("events"))}
	t.Cleanup(l.remove)
	if err := l.sink.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := makeRootfs(l.rootfs()); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lone) remove() {
	if l.t.Failed() {
		l.mu.Lock()
		l.t.Logf("the shims wrote:\n%s", tail(l.logs.String(), 40))
		l.mu.Unlock()
	} else if left := place.Settled(settleTime, func() []string { return l.Leftovers() }); len(left) > 0 {
		l.t.Errorf("left over:\n%s", lines(left))
	}
	if err := errors.Join(l.sink.Stop(), l.Remove()); err != nil {
		l.t.Error(err)
	}
}

// rootfs is the root filesystem that containers share, read-only.
func (l *lone) rootfs() string { return l.Path("rootfs") }

// makeRootfs fills a folder with what the test image has.
func makeRootfs(dir string) error {
	for _, sub := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile(programs.Busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		return err
	}
	names, err := applets()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}

var applets = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command(programs.Busybox, "--list").Output()
	names := strings.Fields(string(out))
	return slices.DeleteFunc(names, func(name string) bool { return name == "busybox" }), err
})

// member is one container of a shim, alone in it unless it has a group.
type member struct {
	*lone
	id      string
	bundle  string
	program string // the shim
	options runcoptions.Options
	request *task.CreateTaskRequest // the options are added
	shim    *daemon.Shim
}

// group puts a container into the group of that name.
func group(name string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Annotations = map[string]string{"io.containerd.runc.v2.group": name}
	}
}

// args makes a container run this.
func args(args ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = args }
}

// hostPIDs leaves a container in the PID namespace that the test is in.
func hostPIDs(s *specs.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
}

// spec is that of a container that waits to be killed.
func (l *lone) spec(id string) *specs.Spec {
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: l.rootfs(), Readonly: true},
		Process: &specs.Process{Args: forever, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1777"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + l.Namespace + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
		},
	}
}

// prepare makes the bundle of a container, and no shim yet.
func (l *lone) prepare(id string, change ...func(*specs.Spec)) *member {
	l.t.Helper()
	return l.prepareIn(l.Path("bundles", id), id, change...)
}

func (l *lone) prepareIn(bundle, id string, change ...func(*specs.Spec)) *member {
	l.t.Helper()
	m := &member{lone: l, id: id, bundle: bundle, program: shimProgram()}
	m.options.BinaryName = programs.Runc
	m.request = &task.CreateTaskRequest{ID: id, Bundle: bundle}
	for _, folder := range []string{"rootfs", "work"} {
		if err := os.MkdirAll(filepath.Join(bundle, folder), 0o711); err != nil {
			l.t.Fatal(err)
		}
	}
	spec := l.spec(id)
	for _, c := range change {
		c(spec)
	}
	m.writeSpec(spec)
	m.readLog()
	return m
}

func (m *member) writeSpec(spec *specs.Spec) {
	m.t.Helper()
	text, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.bundle, "config.json"), text, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// readLog makes the FIFO for the shim's log and collects what comes.
func (m *member) readLog() {
	m.t.Helper()
	path := filepath.Join(m.bundle, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		m.t.Fatal(err)
	}
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { log.Close() })
	go func() { // ends when the file is closed
		buf := make([]byte, 4096)
		for {
			n, err := log.Read(buf)
			m.mu.Lock()
			m.logs.Write(buf[:n])
			m.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
}

// action is one of the shim's short-lived actions as containerd runs it.
func (m *member) action(name string, more ...string) *exec.Cmd {
	flags := []string{"-namespace", m.Namespace, "-address", m.Path("c.sock"), "-publish-binary", programs.Containerd, "-id", m.id}
	cmd := exec.CommandContext(m.ctx, m.program, append(append(flags, more...), name)...)
	cmd.Dir = m.bundle
	cmd.Env = append(m.Environ(programs.Dir), "TTRPC_ADDRESS="+m.sink.Address(),
		"GRPC_ADDRESS="+m.Path("c.sock"), "NAMESPACE="+m.Namespace, "MAX_SHIM_VERSION=2", "GOMAXPROCS=2")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = soon
	return cmd
}

// startAction is `start` with the input that containerd 2.4 gives it.
func (m *member) startAction() *exec.Cmd {
	m.t.Helper()
	params := &bootapi.BootstrapParams{
		InstanceID: m.id, Namespace: m.Namespace, ContainerdVersion: "v2.4.2",
		ContainerdTtrpcAddress: m.sink.Address(), ContainerdGrpcAddress: m.Path("c.sock"),
		ContainerdBinary: programs.Containerd, SocketDir: proto.String(m.Sockets()),
	}
	if err := params.AddExtension(m.packedOptions()); err != nil {
		m.t.Fatal(err)
	}
	input, err := proto.Marshal(params)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.action("start")
	cmd.Stdin = bytes.NewReader(input)
	return cmd
}

// tryBoot runs `start` and returns what it answers.
func (m *member) tryBoot(env ...string) (*bootapi.BootstrapResult, error) {
	m.t.Helper()
	cmd := m.startAction()
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w: %s", m.id, err, out)
	}
	answer := &bootapi.BootstrapResult{}
	if err := proto.Unmarshal(out, answer); err != nil || answer.Address == "" {
		return nil, fmt.Errorf("start %s: cannot read the answer %q: %v", m.id, out, err)
	}
	return answer, nil
}

// boot runs `start` and connects to the shim.
func (m *member) boot(env ...string) *member {
	m.t.Helper()
	answer, err := m.tryBoot(env...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.dial(answer.Address)
	return m
}

func (m *member) dial(address string) {
	m.t.Helper()
	if err := m.tryDial(address); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) tryDial(address string) error {
	shim, err := daemon.Dial(address)
	if err != nil {
		return err
	}
	m.t.Cleanup(func() { shim.Close() })
	m.shim = shim
	return nil
}

// member makes the bundle of a container and its shim.
func (l *lone) member(id string, change ...func(*specs.Spec)) *member {
	l.t.Helper()
	return l.prepare(id, change...).boot()
}

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

// clean runs the action `delete` and removes the bundle, as containerd does
// once the shim is gone.
func (m *member) clean() *task.DeleteResponse {
	m.t.Helper()
	response, err := m.deleteAction()
	if err != nil {
		m.t.Errorf("clean up after %s: %v", m.id, err)
	}
	if err := os.RemoveAll(m.bundle); err != nil {
		m.t.Error(err)
	}
	return response
}

// deleteAction runs `delete` in the bundle and returns its answer. Any word on
// stderr is an error, as it is a warning for containerd. Stock always says one.
func (m *member) deleteAction() (*task.DeleteResponse, error) {
	cmd := m.action("delete", "-bundle", m.bundle)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil && stderr.Len() > 0 && m.program != programs.StockShim {
		err = errors.New("it is not silent")
	}
	if err != nil {
		return nil, fmt.Errorf("delete: %w: %s", err, stderr.String())
	}
	response := &task.DeleteResponse{}
	return response, proto.Unmarshal(stdout.Bytes(), response)
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

// end kills a container and removes it and its shim.
func (m *member) end() {
	m.t.Helper()
	if err := m.tryKill("", unix.SIGKILL, true); err != nil && !errdefs.IsNotFound(err) {
		m.t.Fatalf("kill %s: %v", m.id, err)
	}
	m.wait("")
	m.finish()
}

// told waits until an event with this topic is told of the container, or of an
// exec of it, and returns all that were told until then.
func (m *member) told(topic, execID string) []daemon.Event {
	m.t.Helper()
	events, err := m.sink.Until(within(m.t, soon), m.id, func(list []daemon.Event) bool {
		return indexOf(list, topic, execID) >= 0
	})
	if err != nil {
		m.t.Fatalf("%s %s: %v", topic, execID, err)
	}
	return events
}

// mark makes one more event and waits for it: then all before it have been told
// and will not be told again, even if the sink goes away now.
func (m *member) mark() {
	m.t.Helper()
	m.add(m.execRequest("mark", "true"))
	m.told("/tasks/exec-added", "mark")
	m.delete("mark")
}

// indexOf finds the first event of a topic about a process, or -1.
func indexOf(list []daemon.Event, topic, execID string) int {
	return slices.IndexFunc(list, func(e daemon.Event) bool { return e.Topic == topic && e.ExecID == execID })
}

func lastIndexOf(list []daemon.Event, topic, execID string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Topic == topic && list[i].ExecID == execID {
			return i
		}
	}
	return -1
}

// inOrder tells what is wrong when events are not there once each, in this
// order. Each is a topic and, after a blank, the id of an exec.
func inOrder(list []daemon.Event, want ...string) error {
	last := -1
	for _, w := range want {
		topic, execID, _ := strings.Cut(w, " ")
		at := indexOf(list, topic, execID)
		switch {
		case at < 0:
			return fmt.Errorf("no %s in:\n%s", w, eventLines(list))
		case at < last:
			return fmt.Errorf("%s is out of order in:\n%s", w, eventLines(list))
		case indexOf(list[at+1:], topic, execID) >= 0:
			return fmt.Errorf("%s more than once in:\n%s", w, eventLines(list))
		}
		last = at
	}
	return nil
}

func eventLines(list []daemon.Event) string {
	var text []string
	for _, e := range list {
		text = append(text, e.String())
	}
	return lines(text)
}

// tap is a FIFO that a client makes for output, and what came through it.
type tap struct {
	t    *testing.T
	path string
	end  chan struct{} // closed at the end of the output

	mu    sync.Mutex // guards what follows
	bytes bytes.Buffer
	grown chan struct{} // closed and replaced with every piece
	file  *os.File
	gone  bool // nobody is interested any more
}

// newTap makes a FIFO and reads it.
func newTap(t *testing.T) *tap {
	t.Helper()
	p := newFIFO(t)
	p.read()
	return p
}

// newFIFO makes a FIFO that nobody reads yet.
func newFIFO(t *testing.T) *tap {
	t.Helper()
	p := &tap{t: t, path: filepath.Join(t.TempDir(), "fifo"), end: make(chan struct{}), grown: make(chan struct{})}
	if err := unix.Mkfifo(p.path, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// read begins to read, as containerd's clients do: they wait for a writer.
func (p *tap) read() {
	p.t.Cleanup(func() {
		// Ends a wait for a writer that never came, and a read of one that
		// stays.
		if f, err := os.OpenFile(p.path, os.O_RDWR, 0); err == nil {
			f.Close()
		}
		p.mu.Lock()
		p.gone = true
		if p.file != nil {
			p.file.Close()
		}
		p.mu.Unlock()
		<-p.end
	})
	go func() {
		defer close(p.end)
		f, err := os.OpenFile(p.path, os.O_RDONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		p.mu.Lock()
		p.file = f
		gone := p.gone
		p.mu.Unlock()
		if !gone {
			io.Copy(p, f)
		}
	}()
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes.Write(b)
	close(p.grown)
	p.grown = make(chan struct{})
	return len(b), nil
}

func (p *tap) sofar() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes.String()
}

// all waits for the end of the output and returns it.
func (p *tap) all() string {
	p.t.Helper()
	select {
	case <-p.end:
	case <-within(p.t, soon).Done():
		p.t.Fatalf("the output does not end; so far %q", tail(p.sofar(), 5))
	}
	return p.sofar()
}

// expect waits until the output contains text.
func (p *tap) expect(text string) {
	p.t.Helper()
	ctx := within(p.t, soon)
	for {
		p.mu.Lock()
		found, grown := bytes.Contains(p.bytes.Bytes(), []byte(text)), p.grown
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-grown:
		case <-p.end:
			if !strings.Contains(p.sofar(), text) {
				p.t.Fatalf("the output ends without %q; it is %q", text, tail(p.sofar(), 5))
			}
			return
		case <-ctx.Done():
			p.t.Fatalf("the output does not contain %q but is %q", text, tail(p.sofar(), 5))
		}
	}
}

// aliveNot is the opposite of alive; a zombie counts as gone.
func aliveNot(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	if len(after) > 0 && (after[0] == 'Z' || after[0] == 'X') {
		return nil
	}
	return fmt.Errorf("process %d is there", pid)
}

// ignoreClosed drops the error of a connection that the shim has ended.
func ignoreClosed(err error) error {
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil
	}
	return err
}
