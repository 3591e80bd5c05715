package main

// Containers of the private containerd.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"

	"github.com/cleatrun/cleat/integration/image"
)

var forever = []string{"sleep", "1000000"}

// archive is the test image in a file.
type archive struct{ dir, path string }

func imageFile(busybox string) (archive, error) {
	dir, err := os.MkdirTemp("", "cleat-bench-")
	if err != nil {
		return archive{}, err
	}
	a := archive{dir, filepath.Join(dir, "image.tar")}
	img, err := image.New(busybox)
	if err == nil {
		err = image.WriteFile(img, image.Name, a.path)
	}
	if err != nil {
		a.remove()
		return archive{}, fmt.Errorf("make the image: %w", err)
	}
	return a, nil
}

func (a archive) remove() { os.RemoveAll(a.dir) }

// context is that of calls to containerd.
func (b *bench) context() context.Context { return b.daemon.Context(b.ctx) }

// prepare makes a container, and no task yet.
func (b *bench) prepare(c contender, id string, args []string, more ...oci.SpecOpts) (containerd.Container, error) {
	client, err := b.daemon.Client()
	if err != nil {
		return nil, err
	}
	spec := append([]oci.SpecOpts{oci.WithDefaultPathEnv, oci.WithCgroup("/" + b.daemon.Namespace + "/" + id), oci.WithProcessArgs(args...)}, more...)
	container, err := client.NewContainer(b.context(), id,
		containerd.WithImage(b.image), containerd.WithNewSnapshot(id, b.image),
		containerd.WithRuntime(c.runtime, &runcoptions.Options{BinaryName: c.oci}),
		containerd.WithNewSpec(spec...))
	if err != nil {
		return nil, fmt.Errorf("make container %s: %w", id, err)
	}
	return container, nil
}

// running is a container that runs until end.
type running struct {
	containerd.Container
	b    *bench
	task containerd.Task
	pid  int // of its shim
}

// start makes a container and runs it without standard IO.
func (b *bench) start(c contender, id string, args []string, more ...oci.SpecOpts) (*running, error) {
	container, err := b.prepare(c, id, args, more...)
	if err != nil {
		return nil, err
	}
	r := &running{Container: container, b: b}
	ctx := b.context()
	if r.task, err = container.NewTask(ctx, cio.NullIO); err != nil {
		return nil, fmt.Errorf("create task %s: %w", id, err)
	}
	if err := r.task.Start(ctx); err != nil {
		return nil, fmt.Errorf("start task %s: %w", id, err)
	}
	r.pid, err = b.shimPID(id)
	return r, err
}

// shimPID asks the shim who it is.
func (b *bench) shimPID(id string) (int, error) {
	shim, err := b.daemon.Shim(id)
	if err != nil {
		return 0, err
	}
	defer shim.Close()
	answer, err := shim.Connect(b.ctx, &task.ConnectRequest{ID: id})
	if err != nil {
		return 0, fmt.Errorf("ask the shim of %s for its pid: %w", id, err)
	}
	return int(answer.ShimPid), nil
}

// end kills and removes the container.
func (r *running) end() error {
	ctx := r.b.context()
	exited, err := r.task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := r.task.Kill(ctx, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", r.ID(), err)
	}
	select {
	case <-exited:
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := r.task.Delete(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", r.ID(), err)
	}
	return r.Delete(ctx, containerd.WithSnapshotCleanup)
}

// startMany runs n containers, some at a time.
func (b *bench) startMany(c contender, n int, more ...oci.SpecOpts) ([]*running, error) {
	all := make([]*running, n)
	var starting errgroup.Group
	starting.SetLimit(8)
	for i := range all {
		id := b.name("many")
		starting.Go(func() (err error) {
			if b.ctx.Err() != nil {
				return b.ctx.Err()
			}
			all[i], err = b.start(c, id, forever, more...)
			return err
		})
	}
	return all, starting.Wait()
}

// endMany ends containers, some at a time.
func endMany(all []*running) error {
	var ending errgroup.Group
	ending.SetLimit(8)
	for _, r := range all {
		if r != nil && r.task != nil {
			ending.Go(r.end)
		}
	}
	return ending.Wait()
}

// each runs a container for every contender, calls use, and ends them.
func (b *bench) each(of []contender, args []string, use func(map[string]*running) error) (err error) {
	all := map[string]*running{}
	defer func() {
		for _, r := range all {
			err = errors.Join(err, r.end())
		}
	}()
	for _, c := range of {
		r, err := b.start(c, b.name("of-"+c.name), args)
		if err != nil {
			return err
		}
		all[c.name] = r
	}
	return use(all)
}

// discard takes output as a program that does little with it. io.Discard would
// read by smaller pieces than what copies to other writers.
type discard struct{ n *int64 }

func (d discard) Write(p []byte) (int, error) {
	if d.n != nil {
		*d.n += int64(len(p))
	}
	return len(p), nil
}

// fifos is standard IO by FIFOs whose output is read and dropped.
func (b *bench) fifos(stdout io.Writer, more ...cio.Opt) cio.Creator {
	return cio.NewCreator(append([]cio.Opt{cio.WithStreams(nil, stdout, discard{}), cio.WithFIFODir(b.daemon.Fifos())}, more...)...)
}
