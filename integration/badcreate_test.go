package integration

// Containers that cannot be created: bad specs, bad standard IO, bad OCI
// runtimes, bad bundles.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatrun/cleat/integration/daemon"
)

// badTask is a container whose task cannot be created.
type badTask struct {
	name    string
	options []containerd.NewContainerOpts
	spec    []oci.SpecOpts
	io      cio.Creator
	class   refusal // nil: of no class in particular
	words   string  // some that the user must be told
}

// fails creates the task. It must fail as it should and leave nothing; then the
// same container with nothing wrong must run.
func (c badTask) fails(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	id := fmt.Sprintf("bad-%x", rand.Uint32()) // errors tell it, so it must not hold the words
	b := newBoxWith(t, d, id, c.options, append([]oci.SpecOpts{oci.WithProcessArgs(forever...)}, c.spec...)...)
	if c.io == nil {
		c.io = cio.NullIO
	}
	_, err := b.NewTask(b.ctx, c.io)
	switch {
	case err == nil:
		t.Fatalf("%s: the task is created", c.name)
	case !strings.Contains(err.Error(), c.words):
		t.Errorf("%s: the error is %q, want %q in it", c.name, err, c.words)
	case c.class != nil && !c.class(err):
		t.Errorf("%s: the error is of another class: %v", c.name, err)
	}
	if err := b.Delete(b.ctx, containerd.WithSnapshotCleanup); err != nil {
		t.Fatal(err)
	}
	nothingLeftOf(t, d, id)

	b = newBox(t, d, id, []string{"sh", "-c", "exit 3"}).start(nil)
	b.wait(b.task)()
	if code := b.delete(); code != 3 {
		t.Errorf("%s: the next container of that name ended with %d, want 3", c.name, code)
	}
}

// rawSpec gives a container a spec of these bytes.
func rawSpec(text string) []containerd.NewContainerOpts {
	return []containerd.NewContainerOpts{func(_ context.Context, _ *containerd.Client, c *containers.Container) error {
		c.Spec = &anypb.Any{TypeUrl: c.Spec.GetTypeUrl(), Value: []byte(text)}
		return nil
	}}
}

func TestSpecsThatAreNone(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	for _, c := range []badTask{
		{name: "no JSON", options: rawSpec(`{"ociVersion": "1.2.0", `), words: "unexpected end of JSON input"},
		{name: "wrong types", options: rawSpec(`{"ociVersion": "1.2.0", "process": "sh"}`), words: "cannot unmarshal string into Go"},
		{name: "annotations of wrong type", options: rawSpec(`{"ociVersion": "1.2.0", "annotations": 7}`), words: "annotations"},
		{name: "empty", options: rawSpec(`{}`), words: "OCI runtime create failed: "},
		{name: "no command", spec: []oci.SpecOpts{oci.WithProcessArgs()}, words: "args"},
		{name: "no such program", spec: []oci.SpecOpts{oci.WithProcessArgs("/no/such/program")},
			words: `exec: "/no/such/program": stat /no/such/program: no such file or directory`},
		{name: "program is a text", spec: []oci.SpecOpts{oci.WithProcessArgs("/etc/passwd")}, words: `exec: "/etc/passwd": permission denied`},
		{name: "mount of nothing", spec: []oci.SpecOpts{oci.WithMounts([]specs.Mount{{Type: "bind", Source: "/no/such/source", Destination: "/mnt", Options: []string{"bind"}}})},
			words: "/no/such/source"},
		{name: "namespace of nobody", spec: []oci.SpecOpts{oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/no/such/namespace"})},
			words: "/no/such/namespace"},
	} {
		c.fails(t, d)
	}
}

func TestStandardIOThatIsNone(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	dir := t.TempDir()
	missing, text := filepath.Join(dir, "missing"), filepath.Join(dir, "text")
	const content = "not to be touched"
	if err := os.WriteFile(text, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []badTask{
		{name: "stdin missing", io: fifos(missing, "", "", false), class: errdefs.IsNotFound, words: missing},
		{name: "stdout missing", io: fifos("", missing, "", false), class: errdefs.IsNotFound, words: missing},
		{name: "stderr missing", io: fifos("", "", missing, false), class: errdefs.IsNotFound, words: missing},
		{name: "stdin is a file", io: fifos(text, "", "", false), class: errdefs.IsInvalidArgument, words: "not a FIFO"},
		{name: "stdout is a file", io: fifos("", text, "", false), class: errdefs.IsInvalidArgument, words: "not a FIFO"},
		{name: "stderr is a file", io: fifos("", "", text, false), class: errdefs.IsInvalidArgument, words: "not a FIFO"},
		{name: "terminal missing", spec: []oci.SpecOpts{oci.WithTTY}, io: fifos("", missing, "", true), class: errdefs.IsNotFound, words: missing},
		{name: "terminal is a file", spec: []oci.SpecOpts{oci.WithTTY}, io: fifos(text, "", "", true), class: errdefs.IsInvalidArgument, words: "not a FIFO"},
	} {
		c.fails(t, d)
	}
	if got, err := os.ReadFile(text); string(got) != content {
		t.Errorf("the file in the place of a FIFO holds %q now, %v", got, err)
	}
	if _, err := os.Lstat(missing); err == nil {
		t.Errorf("somebody has made %s", missing)
	}
}

func TestOCIRuntimesThatAreNone(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, path, words string }{
		{"is not there", "/no/such/runtime", "/no/such/runtime"},
		{"is not in PATH", "no-such-runtime", "no-such-runtime"},
		{"is not executable", file("data", "data", 0o644), "permission denied"},
		{"is no program", file("text", "text", 0o755), "exec format error"},
		{"does nothing", scripted(t, "exit 0"), "pid"},
		{"fails in silence", scripted(t, "exit 3"), "exit status 3"},
		// What it prints goes where the container's output would have gone.
		{"prints rubbish and fails", scripted(t, "echo '{\"level\": rubbish'; exit 3"), "exit status 3"},
		{"is killed", scripted(t, "kill -9 $$"), "exit status 137"},
		{"writes rubbish for a pid", scripted(t, "[ $command = create ] && { echo rubbish >$pidfile; exit 0; }"), "rubbish"},
		{"creates and then fails", scripted(t, "[ $command = create ] && { runc \"$@\"; exit 3; }"), "exit status 3"},
	} {
		options := &runcoptions.Options{BinaryName: c.path}
		badTask{
			name:    "runtime " + c.name,
			options: []containerd.NewContainerOpts{containerd.WithRuntime(runtimeName, options)},
			words:   c.words,
		}.fails(t, d)
	}
}

// TestPIDOfSomebodyElse has an OCI runtime that tells the pid of a process which
// is none of the container's. That must not come to harm.
func TestPIDOfSomebodyElse(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	other := newBox(t, d, "somebody-else", forever).start(nil)
	options := &runcoptions.Options{BinaryName: scripted(t, fmt.Sprintf(
		"case $command in create) echo -n %d >$pidfile; exit 0;; *) exit 0;; esac", other.task.Pid()))}
	b := newBoxWith(t, d, "pid-of-another", []containerd.NewContainerOpts{containerd.WithRuntime(runtimeName, options)},
		oci.WithProcessArgs(forever...))
	if _, err := b.NewTask(b.ctx, cio.NullIO); err == nil {
		t.Error("a task is created of another container's process")
	}
	b.cleanup()
	if err := alive(int(other.task.Pid())); err != nil {
		t.Error(err)
	}
	other.status(containerd.Running)
	other.end()
	nothingLeftOf(t, d, b.ID())
}

// TestBundleThatCannotBeWritten makes the bundle read-only, after and before the
// shim is started.
func TestBundleThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	// A mount of its own, on which nobody has a file open to write.
	readOnly := func(m *member) (undo func()) {
		t.Helper()
		if err := unix.Mount(m.bundle, m.bundle, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", m.bundle, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := unix.Unmount(m.bundle, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, started := range []bool{true, false} {
		m := l.prepare(fmt.Sprint("read-only-", started))
		if started {
			m.boot()
			undo := readOnly(m)
			if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), "read-only file system") {
				t.Errorf("Create in a read-only bundle gives %v", err)
			}
			undo()
			m.run()
			m.kill("", unix.SIGKILL)
			m.wait("")
			m.delete("")
			m.shutdown()
		} else {
			undo := readOnly(m)
			if _, err := m.tryBoot(); err == nil || !strings.Contains(err.Error(), "read-only file system") {
				t.Errorf("start in a read-only bundle gives %v", err)
			}
			undo()
		}
		m.clean()
	}
}

// TestSpecThatIsMissing removes config.json between `start` and Create.
func TestSpecThatIsMissing(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("no-spec")
	spec := filepath.Join(m.bundle, "config.json")
	if err := os.Rename(spec, spec+".not"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), spec) {
		t.Errorf("Create without a spec gives %v", err)
	}
	if err := os.Rename(spec+".not", spec); err != nil {
		t.Fatal(err)
	}
	m.run().end()
}

// What the OCI runtime says of a container that it cannot make is told to who
// asked for it, once, and is not output of the container.
func TestWordsOfTheRuntimeAreNotTheContainersOutput(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	out, errs := newTap(t), newTap(t)
	m := l.prepare("words", func(s *specs.Spec) { s.Process.Args = []string{"/no/such/program"} }).boot()
	m.request.Stdout, m.request.Stderr = out.path, errs.path
	if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("create gives %v", err)
	}
	for _, p := range []*tap{out, errs} {
		<-p.end
		if got := p.bytes.String(); got != "" {
			t.Errorf("the container's output is %q", got)
		}
	}
	m.shutdown()
	m.clean()
}
