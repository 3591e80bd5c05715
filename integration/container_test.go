package integration

// Containers as users of containerd's Go client make them.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
)

// forever is what a container runs that has nothing to do but be there. It
// ends at once with status 9 when it is asked to (SIGTERM), once it catches that
// (see catches).
var forever = []string{"sh", "-c", "trap 'exit 9' TERM; sleep 100000 & wait"}

// box is a container and its task.
type box struct {
	containerd.Container
	t    *testing.T
	ctx  context.Context
	d    *daemon.Daemon
	task containerd.Task
}

// newBox makes a container that will run args. When the test ends, what is
// left of the container is removed.
func newBox(t *testing.T, d *daemon.Daemon, id string, args []string, more ...oci.SpecOpts) *box {
	t.Helper()
	return newBoxWith(t, d, id, nil, append([]oci.SpecOpts{oci.WithProcessArgs(args...)}, more...)...)
}

// newBoxWith is newBox with options for a container.
func newBoxWith(t *testing.T, d *daemon.Daemon, id string, options []containerd.NewContainerOpts, spec ...oci.SpecOpts) *box {
	t.Helper()
	b := &box{t: t, ctx: d.Context(bounded(t)), d: d}
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.GetImage(b.ctx, image.Name)
	if err != nil {
		t.Fatal(err)
	}
	all := append([]containerd.NewContainerOpts{
		containerd.WithImage(img),
		containerd.WithNewSnapshot(id, img),
		containerd.WithNewSpec(append([]oci.SpecOpts{oci.WithDefaultPathEnv, inCgroup(d, id)}, spec...)...),
	}, options...)
	if b.Container, err = client.NewContainer(b.ctx, id, all...); err != nil {
		t.Fatalf("make container %s: %v", id, err)
	}
	t.Cleanup(b.cleanup)
	return b
}

// inCgroup says where the container's cgroup is, as ctr says it.
func inCgroup(d *daemon.Daemon, id string) oci.SpecOpts {
	return oci.WithCgroup("/" + d.Namespace + "/" + id)
}

// cleanup removes whatever is left, after a test that has failed too.
func (b *box) cleanup() {
	ctx, cancel := context.WithTimeout(b.d.Context(context.Background()), testTime)
	defer cancel()
	client, err := b.d.Client()
	if err != nil {
		return // containerd is gone, its place will be, too
	}
	// A client of its own: b's may be one of before containerd was killed.
	c, err := client.LoadContainer(ctx, b.ID())
	if err != nil {
		return
	}
	if task, err := c.Task(ctx, nil); err == nil {
		task.Delete(ctx, containerd.WithProcessKill)
	}
	c.Delete(ctx, containerd.WithSnapshotCleanup)
}

// create creates the task.
func (b *box) create(creator cio.Creator, options ...containerd.NewTaskOpts) *box {
	b.t.Helper()
	var err error
	if b.task, err = b.NewTask(b.ctx, creator, options...); err != nil {
		b.t.Fatalf("create the task of %s: %v", b.ID(), err)
	}
	return b
}

// start creates and starts the task; with no creator it has no standard IO.
func (b *box) start(creator cio.Creator) *box {
	b.t.Helper()
	if creator == nil {
		creator = cio.NullIO
	}
	b.create(creator)
	if err := b.task.Start(b.ctx); err != nil {
		b.t.Fatalf("start the task of %s: %v", b.ID(), err)
	}
	return b
}

// streams is standard IO with the Go client's copying and FIFOs in the place.
func (b *box) streams(stdin io.Reader, stdout, stderr io.Writer, more ...cio.Opt) cio.Creator {
	return cio.NewCreator(append([]cio.Opt{cio.WithStreams(stdin, stdout, stderr), cio.WithFIFODir(b.d.Fifos())}, more...)...)
}

// status of the task must be this.
func (b *box) status(want containerd.ProcessStatus) {
	b.t.Helper()
	status, err := b.task.Status(b.ctx)
	if err != nil {
		b.t.Fatalf("status of %s: %v", b.ID(), err)
	}
	if status.Status != want {
		b.t.Fatalf("%s is %s, want %s", b.ID(), status.Status, want)
	}
}

// wait begins to wait for a process and returns how to get its exit code.
func (b *box) wait(p containerd.Process) func() uint32 {
	b.t.Helper()
	exited, err := p.Wait(b.ctx)
	if err != nil {
		b.t.Fatalf("wait for %s: %v", p.ID(), err)
	}
	return func() uint32 {
		b.t.Helper()
		select {
		case status := <-exited:
			code, _, err := status.Result()
			if err != nil {
				b.t.Fatalf("wait for %s: %v", p.ID(), err)
			}
			return code
		case <-b.ctx.Done():
			b.t.Fatalf("%s does not end: %v", p.ID(), b.ctx.Err())
			return 0
		}
	}
}

// kill sends the task a signal.
func (b *box) kill(signal syscall.Signal, options ...containerd.KillOpts) {
	b.t.Helper()
	if err := b.task.Kill(b.ctx, signal, options...); err != nil {
		b.t.Fatalf("send signal %d to %s: %v", signal, b.ID(), err)
	}
}

// exec adds and starts a process in the container; with no creator it has no
// standard IO.
func (b *box) exec(id string, creator cio.Creator, args ...string) containerd.Process {
	b.t.Helper()
	p := b.addExec(id, creator, args...)
	if err := p.Start(b.ctx); err != nil {
		b.t.Fatalf("start exec %s in %s: %v", id, b.ID(), err)
	}
	return p
}

func (b *box) addExec(id string, creator cio.Creator, args ...string) containerd.Process {
	b.t.Helper()
	if creator == nil {
		creator = cio.NullIO
	}
	spec, err := b.Spec(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	process := *spec.Process
	process.Args = args
	p, err := b.task.Exec(b.ctx, id, &process, creator)
	if err != nil {
		b.t.Fatalf("add exec %s to %s: %v", id, b.ID(), err)
	}
	return p
}

// output runs a command in the container and returns what it writes.
func (b *box) output(id string, args ...string) string {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	p := b.exec(id, b.streams(nil, &stdout, &stderr), args...)
	code := b.wait(p)()
	b.deleteExec(p)
	if code != 0 {
		b.t.Fatalf("exec %q in %s ended with %d:\n%s%s", args, b.ID(), code, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// deleteExec deletes an exec that has ended and returns its exit code.
func (b *box) deleteExec(p containerd.Process) uint32 {
	b.t.Helper()
	status, err := p.Delete(b.ctx)
	if err != nil {
		b.t.Fatalf("delete exec %s of %s: %v", p.ID(), b.ID(), err)
	}
	return status.ExitCode()
}

// delete deletes the task, which must have ended, and the container, and
// returns the task's exit code.
func (b *box) delete() uint32 {
	b.t.Helper()
	status, err := b.task.Delete(b.ctx)
	if err != nil {
		b.t.Fatalf("delete the task of %s: %v", b.ID(), err)
	}
	if err := b.Delete(b.ctx, containerd.WithSnapshotCleanup); err != nil {
		b.t.Fatalf("delete container %s: %v", b.ID(), err)
	}
	return status.ExitCode()
}

// end kills the task, deletes everything, and looks that nothing is left.
func (b *box) end() {
	b.t.Helper()
	ended := b.wait(b.task)
	if err := b.task.Kill(b.ctx, syscall.SIGKILL, containerd.WithKillAll); err != nil && !errdefs.IsNotFound(err) {
		b.t.Fatalf("kill %s: %v", b.ID(), err)
	}
	ended()
	b.delete()
	nothingLeftOf(b.t, b.d, b.ID())
}

// pids of the container, ascending.
func (b *box) pids() []int {
	b.t.Helper()
	list, err := b.task.Pids(b.ctx)
	if err != nil {
		b.t.Fatalf("pids of %s: %v", b.ID(), err)
	}
	var pids []int
	for _, p := range list {
		pids = append(pids, int(p.Pid))
	}
	slices.Sort(pids)
	return pids
}

// shim connects to the Task service of the shim that serves the container.
func (b *box) shim() *daemon.Shim {
	b.t.Helper()
	shim, err := b.d.Shim(b.ID())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { shim.Close() })
	return shim
}

// catches waits until a container's process has a handler for a signal. A first
// process of a PID namespace without one is not even killed by it. The OCI
// runtime's own program, which the process is at first, does not count.
func catches(t *testing.T, pid uint32, signal syscall.Signal) {
	t.Helper()
	eventually(t, func() error {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return err
		}
		_, after, _ := strings.Cut(string(status), "SigCgt:")
		mask, err := strconv.ParseUint(strings.Fields(after)[0], 16, 64)
		if err == nil && (mask&(1<<(signal-1)) == 0 || strings.HasPrefix(string(status), "Name:\trunc:")) {
			err = fmt.Errorf("process %d does not catch signal %d:\n%s", pid, signal, status)
		}
		return err
	})
}

// runs waits until a process runs a program. For a moment an exec that was
// started is the OCI runtime's own program yet, which treats signals its own way.
func runs(t *testing.T, pid uint32, program string) {
	t.Helper()
	eventually(t, func() error {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(name) != program+"\n" {
			err = fmt.Errorf("process %d runs %q, not yet %s", pid, name, program)
		}
		return err
	})
}

// alive says whether there is a process with that pid, which is not a zombie.
func alive(pid int) error {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d is gone", pid)
	}
	return nil
}

// input is what a client passes on to a process's standard input.
type input struct {
	io.Reader
	once sync.Once
	read chan struct{} // closed when all of it is passed on
}

func newInput(text string) *input {
	return &input{Reader: strings.NewReader(text), read: make(chan struct{})}
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err == io.EOF {
		i.once.Do(func() { close(i.read) })
	}
	return n, err
}

// closeAtEnd tells containerd that there is no more input when that is so.
func (i *input) closeAtEnd(ctx context.Context, p containerd.Process) error {
	select {
	case <-i.read:
		return p.CloseIO(ctx, containerd.WithStdinCloser)
	case <-ctx.Done():
		return fmt.Errorf("%s does not take its input: %w", p.ID(), ctx.Err())
	}
}
