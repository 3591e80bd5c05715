package integration

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
)

// TestWalkWithClient walks the whole life of a container with containerd's Go
// client, which shows more of it than ctr: the moment between create and start,
// the waiting, the sizes of terminals.
func TestWalkWithClient(t *testing.T) {
	d := sharedDaemon(t)
	ctx := d.Context(bounded(t))
	const id = "walk-client"
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	ref := pullable(t, "walk/client:latest")
	img, err := client.Pull(ctx, ref, containerd.WithPullUnpack, containerd.WithResolver(
		docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost))})))
	if err != nil {
		t.Fatalf("pull %s: %v", ref, err)
	}

	b := newBoxWith(t, d, id, []containerd.NewContainerOpts{containerd.WithImage(img)}, oci.WithProcessArgs(forever...))
	b.create(cio.NullIO)
	b.status(containerd.Created)
	pid := int(b.task.Pid())
	if pid == 0 || alive(pid) != nil {
		t.Fatalf("a created task has the process %d: %v", pid, alive(pid))
	}
	if row := listed(t, d, id); row.status != "CREATED" || row.pid != pid {
		t.Errorf("ctr tasks ls shows %+v, want CREATED with process %d", row, pid)
	}
	ended := b.wait(b.task)
	if err := b.task.Start(ctx); err != nil {
		t.Fatal(err)
	}
	b.status(containerd.Running)
	if got := int(b.task.Pid()); got != pid {
		t.Errorf("the process was %d when the task was created and is %d now that it is started", pid, got)
	}

	t.Run("execs at once", func(t *testing.T) { clientExecsAtOnce(t, b) })

	background := b.exec("background", nil, "sleep", "1000")
	if pids := b.pids(); !slices.Contains(pids, pid) || !slices.Contains(pids, int(background.Pid())) {
		t.Errorf("the container has the processes %v, without its first, %d, or its exec's, %d", pids, pid, background.Pid())
	}
	if err := background.Kill(ctx, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	b.wait(background)()
	if code := b.deleteExec(background); code != 137 {
		t.Errorf("a killed exec has exit code %d, want 137", code)
	}

	catches(t, b.task.Pid(), syscall.SIGTERM)
	b.kill(syscall.SIGTERM)
	if code := ended(); code != 9 {
		t.Errorf("Wait tells exit code %d, want 9", code)
	}
	b.status(containerd.Stopped)
	if code := b.delete(); code != 9 {
		t.Errorf("Delete tells exit code %d, want 9", code)
	}
	if _, err := client.LoadContainer(ctx, id); !errdefs.IsNotFound(err) {
		t.Errorf("the container was deleted, but to load it gives %v", err)
	}
	if err := client.ImageService().Delete(ctx, ref); err != nil {
		t.Error(err)
	}
	nothingLeft(t, d)
}

// clientExecsAtOnce adds several execs, then starts them all at once, then
// waits for all.
func clientExecsAtOnce(t *testing.T, b *box) {
	var inputs [4]*input
	var outputs [4]bytes.Buffer
	var processes [4]containerd.Process
	for i := range processes {
		name := string(rune('a' + i))
		inputs[i] = newInput(name)
		processes[i] = b.addExec("exec-"+name, b.streams(inputs[i], &outputs[i], io.Discard),
			"sh", "-c", "cat; exit "+string(rune('1'+i)))
	}
	var all sync.WaitGroup
	for i, p := range processes {
		all.Go(func() {
			exited, err := p.Wait(b.ctx)
			if err == nil {
				err = p.Start(b.ctx)
			}
			if err == nil {
				err = inputs[i].closeAtEnd(b.ctx, p)
			}
			if err != nil {
				t.Errorf("%s: %v", p.ID(), err)
				return
			}
			if status := <-exited; status.ExitCode() != uint32(i+1) || status.Error() != nil {
				t.Errorf("%s ended with %d, %v, want %d", p.ID(), status.ExitCode(), status.Error(), i+1)
			}
			if _, err := p.Delete(b.ctx); err != nil {
				t.Errorf("%s: %v", p.ID(), err)
			}
			if got, want := outputs[i].String(), string(rune('a'+i)); got != want {
				t.Errorf("%s wrote %q, want %q", p.ID(), got, want)
			}
		})
	}
	all.Wait()
}
