package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/tools"
)

// TestManyContainersAtATime runs 200 containers, 8 at a time, each with an exit
// code of its own choice. Every fourth runs execs, of which one is still there
// when the container ends. All codes must be right, all events there, once, in
// order, and nothing left.
func TestManyContainersAtATime(t *testing.T) {
	const atATime = 8
	const budget = time.Minute // five times what a small machine takes
	containers := fewer(200)
	d := sharedDaemon(t)
	ctx := d.Context(bounded(t))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.GetImage(ctx, image.Name)
	if err != nil {
		t.Fatal(err)
	}
	events, err := d.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	lives := make([]life, containers)
	var all errgroup.Group
	all.SetLimit(atATime)
	for i := range rounds(t, containers, budget) {
		l := &lives[i]
		*l = life{id: fmt.Sprintf("many-%d", i), code: random.Uint32N(256), execs: i%4 == 0}
		all.Go(func() error {
			if err := l.live(ctx, d, client, img); err != nil {
				return fmt.Errorf("%s: %w", l.id, err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if lives[containers-1].id == "" && os.Getenv(tools.EnvBuilt) == "" {
		// Only under emulation, where everything takes ten times as long, are
		// fewer enough.
		t.Errorf("not all of %d containers ran within %s", containers, budget)
	}
	for _, l := range lives {
		if l.id == "" {
			break // for want of time
		}
		if err := l.check(ctx, events); err != nil {
			t.Errorf("%s: %v", l.id, err)
		}
	}
	nothingLeft(t, d)
}

// life is what one of many containers is made for, and what its processes were.
type life struct {
	id    string
	code  uint32
	execs bool

	init, done, left uint32 // pids: of the container, of an exec that ends, of one that does not
}

// execCode is the exit code of the exec that ends.
const execCode = 42

// live makes the container, runs it, and removes it.
func (l *life) live(ctx context.Context, d *daemon.Daemon, client *containerd.Client, img containerd.Image) error {
	args := []string{"sh", "-c", fmt.Sprintf("exit %d", l.code)}
	if l.execs {
		args = []string{"sh", "-c", fmt.Sprintf("trap 'exit %d' TERM; touch /ready; sleep 100000 & wait", l.code)}
	}
	c, err := client.NewContainer(ctx, l.id, containerd.WithImage(img), containerd.WithNewSnapshot(l.id, img),
		containerd.WithNewSpec(oci.WithDefaultPathEnv, inCgroup(d, l.id), oci.WithProcessArgs(args...)))
	if err != nil {
		return err
	}
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	exited, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		return err
	}
	l.init = task.Pid()
	if l.execs {
		if err := l.exec(ctx, c, task); err != nil {
			return err
		}
	}
	if status := <-exited; status.ExitCode() != l.code || status.Error() != nil {
		return fmt.Errorf("Wait says %d, %v, want %d", status.ExitCode(), status.Error(), l.code)
	}
	status, err := task.Delete(ctx)
	if err != nil {
		return err
	}
	if status.ExitCode() != l.code {
		return fmt.Errorf("Delete says %d, want %d", status.ExitCode(), l.code)
	}
	return c.Delete(ctx, containerd.WithSnapshotCleanup)
}

// exec runs one exec to its end and one that the end of the container ends.
func (l *life) exec(ctx context.Context, c containerd.Container, task containerd.Task) error {
	spec, err := c.Spec(ctx)
	if err != nil {
		return err
	}
	start := func(id string, args ...string) (containerd.Process, error) {
		process := *spec.Process
		process.Args = args
		p, err := task.Exec(ctx, id, &process, cio.NullIO)
		if err != nil {
			return nil, err
		}
		return p, p.Start(ctx)
	}
	done, err := start("done", "sh", "-c", fmt.Sprintf("until [ -e /ready ]; do usleep 1000; done; exit %d", execCode))
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	l.done = done.Pid()
	exited, err := done.Wait(ctx)
	if err != nil {
		return err
	}
	if status := <-exited; status.ExitCode() != execCode || status.Error() != nil {
		return fmt.Errorf("Wait for the exec says %d, %v, want %d", status.ExitCode(), status.Error(), execCode)
	}
	if _, err := done.Delete(ctx); err != nil {
		return fmt.Errorf("delete exec: %w", err)
	}
	left, err := start("left", "sleep", "100000")
	if err != nil {
		return fmt.Errorf("second exec: %w", err)
	}
	l.left = left.Pid()
	return task.Kill(ctx, syscall.SIGTERM)
}

// check looks at what was told of the container.
func (l *life) check(ctx context.Context, events *daemon.Events) error {
	got, err := events.Until(ctx, l.id, func(list []daemon.Event) bool { return indexOf(list, "/tasks/delete", "") >= 0 })
	if err != nil {
		return err
	}
	event := func(topic, exec string, pid, status uint32) daemon.Event {
		return daemon.Event{Topic: topic, ContainerID: l.id, ExecID: exec, PID: pid, ExitStatus: status}
	}
	var want []daemon.Event
	want = append(want, event("/tasks/create", "", l.init, 0), event("/tasks/start", "", l.init, 0))
	if l.execs {
		want = append(want,
			event("/tasks/exec-added", "done", 0, 0), event("/tasks/exec-started", "done", l.done, 0), event("/tasks/exit", "done", l.done, execCode),
			event("/tasks/exec-added", "left", 0, 0), event("/tasks/exec-started", "left", l.left, 0), event("/tasks/exit", "left", l.left, 137))
	}
	want = append(want, event("/tasks/exit", "", l.init, l.code), event("/tasks/delete", "", l.init, l.code))

	// A delete event of the exec is allowed, not asked for.
	got = slices.DeleteFunc(got, func(e daemon.Event) bool { return e.Topic == "/tasks/delete" && e.ExecID != "" })
	if !slices.Equal(got, want) {
		return errors.New("the events are\n" + eventLines(got) + "\nwant\n" + eventLines(want))
	}
	return nil
}
