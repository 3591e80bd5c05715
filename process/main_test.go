package process

// The tests' containers are made by a scripted OCI runtime (package ocitest) and
// run real processes. The test process is the child subreaper, as the shim is.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

func TestMain(m *testing.M) {
	ocitest.Console()
	if err := child.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	child.ReapOrphans()
	code := m.Run()
	for _, pid := range children() {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		fmt.Printf("left behind: process %d %q\n", pid, stat)
		syscall.Kill(pid, syscall.SIGKILL)
		code = 1
	}
	os.Exit(code)
}

// children of the test process.
func children() (pids []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		list, _ := os.ReadFile(file) // its thread may have ended
		for word := range strings.FieldsSeq(string(list)) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
	}
	return pids
}

const (
	patience  = 20 * time.Second // for what happens at once on an idle machine
	namespace = "space"
)

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// class reduces an error to what a client tests for.
func class(err error) error {
	for _, c := range []error{errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument,
		errdefs.ErrUnavailable, errdefs.ErrInternal, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, c) {
			return c
		}
	}
	return err
}

// box is one container of a test.
type box struct {
	*Container
	t       testing.TB
	runtime *ocitest.Runtime
	bundle  oci.Bundle
	told    *record
	gone    chan struct{} // closed by Config.Gone
}

// boxOptions are what a test wants differently.
type boxOptions struct {
	init   string // script of the init process; sleeps if empty
	spec   stdio.Spec
	limits Limits
	change func(*Config)
}

const sleeps = "exec sleep 1000"

var boxes struct {
	sync.Mutex
	n int
}

// newBox prepares a container. What is left of it at the test's end is removed.
func newBox(t testing.TB, o boxOptions) *box {
	t.Helper()
	return newBoxOf(t, ocitest.New(t, namespace), o)
}

func newBoxOf(t testing.TB, runtime *ocitest.Runtime, o boxOptions) *box {
	t.Helper()
	boxes.Lock()
	boxes.n++
	id := fmt.Sprint("box-", boxes.n)
	boxes.Unlock()
	if o.init == "" {
		o.init = sleeps
	}
	b := &box{t: t, runtime: runtime, bundle: runtime.Bundle(id, o.init), gone: make(chan struct{})}
	b.told = &record{t: t, box: b}
	limits := DefaultLimits
	limits.Drain = time.Second
	if o.limits != (Limits{}) {
		limits = o.limits
	}
	config := Config{
		ID: id, Namespace: namespace, Bundle: b.bundle, Options: runtime.Options(), Stdio: o.spec, Limits: limits,
		Publish: b.told.publish,
		Gone:    func() { close(b.gone) },
		Log:     b.told.log,
	}
	if o.change != nil {
		o.change(&config)
	}
	b.Container = New(config)
	t.Cleanup(b.remove)
	return b
}

func (b *box) remove() {
	if s := b.Init().State().State; s == Absent || s == Deleted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.killExecs()
	b.Init().Kill(syscall.SIGKILL, false)
	if b.Init().State().PID != 0 {
		b.Init().Wait(ctx)
	}
	if err := b.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		b.t.Errorf("remove %s: %v", b.ID, err)
	}
}

// killExecs does what the end of a PID namespace does.
func (b *box) killExecs() {
	b.mu.Lock()
	execs := maps.Clone(b.execs)
	b.mu.Unlock()
	for _, p := range execs {
		p.Kill(syscall.SIGKILL, false)
	}
}

func (b *box) create() {
	b.t.Helper()
	must(b.t, "create", b.Create(bounded(b.t)))
}

func (b *box) start() {
	b.t.Helper()
	must(b.t, "start", b.Start(bounded(b.t)))
}

func (b *box) run() {
	b.t.Helper()
	b.create()
	b.start()
}

// ends waits for the init process's end.
func (b *box) ends(status int) {
	b.t.Helper()
	ends(b.t, b.Init(), status)
}

func ends(t testing.TB, p *Process, status int) {
	t.Helper()
	exit, err := p.Wait(bounded(t))
	must(t, "wait", err)
	if exit.Status != status || exit.At.IsZero() {
		t.Errorf("%s ended with %+v, want status %d", p.name(), exit, status)
	}
}

func (b *box) delete() {
	b.t.Helper()
	must(b.t, "delete", b.Delete(bounded(b.t)))
}

// exec adds an exec that runs the script.
func (b *box) exec(id, script string) *Process {
	b.t.Helper()
	return b.execOn(id, script, stdio.Spec{})
}

func (b *box) execOn(id, script string, spec stdio.Spec) *Process {
	b.t.Helper()
	if script != "" {
		b.runtime.Exec(b.bundle, id, script)
	}
	must(b.t, "add exec", b.AddExec(id, []byte(`{"args": ["script"], "cwd": "/"}`), spec))
	p, err := b.Process(id)
	must(b.t, "find exec", err)
	return p
}

// inBackground starts an operation and waits until it is under way.
func (b *box) inBackground(p *Process, op Operation, f func(context.Context) error) <-chan error {
	b.t.Helper()
	answer := make(chan error, 1)
	ctx := bounded(b.t)
	go func() { answer <- f(ctx) }()
	eventually(b.t, fmt.Sprintf("%q is under way", op), func() bool { return p.State().Operation == op.String() })
	return answer
}

func mkfifo(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, "make FIFO", syscall.Mkfifo(path, 0o600))
	return path
}

// reads has a client read a FIFO to its end, from its first writer on.
func reads(t testing.TB, path string) <-chan string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		text, err := os.ReadFile(path)
		if err != nil {
			text = append(text, err.Error()...)
		}
		got <- string(text)
	}()
	return got
}
