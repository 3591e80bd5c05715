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

// fewer is n, or a quarter of it in the short form, which is for machines on which
// everything takes ten times as long.
func fewer(n int) int {
	if testing.Short() {
		return max(n/4, 1)
	}
	return n
}

// rounds counts up to n, to provoke what happens once in a while. On a slow
// machine it stops when budget, in the short form a quarter of it, is used up, but
// not before the third.
func rounds(t *testing.T, n int, budget time.Duration) iter.Seq[int] {
	if testing.Short() {
		budget /= 4
	}
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
	// What `start` is told of options, if it is not the same; and that it is told
	// of no folder for sockets.
	startOptions *anypb.Any
	noSocketDir  bool
	shim         *daemon.Shim
	log          *os.File // what the shim writes into is read from here
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
	m.log = log
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
	if m.noSocketDir {
		params.SocketDir = nil
	}
	o := m.startOptions
	if o == nil {
		o = m.packedOptions()
	}
	if err := params.AddExtension(o); err != nil {
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

// ignoreClosed drops the error of a connection that the shim has ended.
func ignoreClosed(err error) error {
	if errors.Is(err, ttrpc.ErrClosed) {
		return nil
	}
	return err
}
