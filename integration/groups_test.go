package integration

// Which containers share a shim, as the configuration file says it, with a real
// containerd.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
)

// grouping is a containerd whose shims are told a group.
func grouping(t *testing.T, group string) *daemon.Daemon {
	t.Helper()
	ourConfiguration(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "group = %q\n", group), 0o600); err != nil {
		t.Fatal(err)
	}
	config := config()
	config.Env = []string{"CLEAT_CONFIG=" + path}
	return ownDaemon(t, config)
}

func annotated(key, value string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{key: value})
}

// Each group, by the containers that must share a shim.
func TestGroupsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	pod := annotated("io.kubernetes.cri.sandbox-id", "pod")
	blue, red := annotated("example.com/team", "blue"), annotated("example.com/team", "red")
	for group, shims := range map[string]int{
		"pod": 4, "container": 5, "namespace": 1, "annotation:example.com/team": 3,
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			d := grouping(t, group)
			pids := map[int]bool{}
			var boxes []*box
			for i, options := range [][]oci.SpecOpts{{pod, blue}, {pod, red}, {blue}, {red}, nil} {
				b := newBox(t, d, fmt.Sprint("of-group-", i), forever, options...).start(nil)
				pids[b.shimPID()] = true
				boxes = append(boxes, b)
			}
			if len(pids) != shims {
				t.Errorf("%d shims serve 5 containers, want %d", len(pids), shims)
			}
			for _, b := range boxes { // the one that a shim was started for goes first
				ended := b.wait(b.task)
				b.kill(syscall.SIGKILL)
				ended()
				b.delete()
			}
			nothingLeft(t, d)
		})
	}
}

// One shim for a whole namespace, in which containers come and go all the time:
// many at once, and again and again one while the last one goes and its shim is
// about to end.
func TestGroupNamespaceUnderStress(t *testing.T) {
	t.Parallel()
	const atOnce, budget = 6, 6 * time.Second
	d := grouping(t, "namespace")
	ctx := d.Context(bounded(t))
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.GetImage(ctx, image.Name)
	if err != nil {
		t.Fatal(err)
	}
	crowd := &crowd{ctx: ctx, d: d, client: client, image: img}
	for i := range rounds(t, 8, budget) {
		var all errgroup.Group
		for n := range atOnce {
			all.Go(func() error { return crowd.pass(fmt.Sprintf("crowd-%d-%d", i, n)) })
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	last, err := crowd.start("relay")
	if err != nil {
		t.Fatal(err)
	}
	for i := range rounds(t, 40, budget) {
		var next containerd.Task
		var both errgroup.Group
		both.Go(func() error { return crowd.end(last) })
		both.Go(func() (err error) {
			next, err = crowd.start(fmt.Sprint("relay-", i))
			return err
		})
		if err := both.Wait(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		last = next
	}
	if err := crowd.end(last); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, d)
}

// crowd makes containers concurrently, so it fails no test by itself.
type crowd struct {
	ctx    context.Context
	d      *daemon.Daemon
	client *containerd.Client
	image  containerd.Image
}

// pass is the whole life of a container.
func (c *crowd) pass(id string) error {
	task, err := c.start(id)
	if err != nil {
		return err
	}
	return c.end(task)
}

func (c *crowd) start(id string) (containerd.Task, error) {
	container, err := c.client.NewContainer(c.ctx, id, containerd.WithImage(c.image), containerd.WithNewSnapshot(id, c.image),
		containerd.WithNewSpec(oci.WithDefaultPathEnv, inCgroup(c.d, id), oci.WithProcessArgs("sleep", "100000")))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	task, err := container.NewTask(c.ctx, cio.NullIO)
	if err == nil {
		err = task.Start(c.ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return task, nil
}

func (c *crowd) end(task containerd.Task) error {
	exited, err := task.Wait(c.ctx)
	if err == nil {
		err = task.Kill(c.ctx, syscall.SIGKILL)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", task.ID(), err)
	}
	if status := <-exited; status.ExitCode() != 137 || status.Error() != nil {
		return fmt.Errorf("%s ended with %d, %w", task.ID(), status.ExitCode(), status.Error())
	}
	if _, err := task.Delete(c.ctx); err != nil {
		return fmt.Errorf("%s: %w", task.ID(), err)
	}
	container, err := c.client.LoadContainer(c.ctx, task.ID())
	if err != nil {
		return fmt.Errorf("%s: %w", task.ID(), err)
	}
	return container.Delete(c.ctx, containerd.WithSnapshotCleanup)
}
