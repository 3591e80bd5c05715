package integration

import (
	"slices"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestContainerdIsKilledAndStartedAgain kills containerd while containers run.
// They must not notice; what happens meanwhile must be known afterwards.
func TestContainerdIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	d := ownDaemon(t, config())

	goesIn, execIn, briefIn, endsIn, shellIn := newFeed(t), newFeed(t), newFeed(t), newFeed(t), newFeed(t)
	goesOut, execOut, shellOut := newTap(t), newTap(t), newTap(t)

	// One goes on, with an exec that goes on and one that ends meanwhile.
	const talk = `while read line; do echo "$0 $line"; done; exit 3`
	goes := newBox(t, d, "goes-on", []string{"sh", "-c", talk, "init"}).start(fifos(goesIn.path, goesOut.path, "", false))
	goesIn.open()
	goes.exec("talks", fifos(execIn.path, execOut.path, "", false), "sh", "-c", talk, "exec")
	execIn.open()
	brief := goes.exec("brief", fifos(briefIn.path, "", "", false), "sh", "-c", "read code; exit $code")
	briefIn.open()

	// One ends meanwhile, one is paused, one has a terminal.
	ends := newBox(t, d, "ends", []string{"sh", "-c", "read code; exit $code"}).start(fifos(endsIn.path, "", "", false))
	endsIn.open()
	paused := newBox(t, d, "paused", forever).start(nil)
	if err := paused.task.Pause(paused.ctx); err != nil {
		t.Fatal(err)
	}
	shell := newBox(t, d, "terminal", []string{"sh"}, oci.WithTTY).start(fifos(shellIn.path, shellOut.path, "", true))
	shellIn.open()

	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	goesIn.write("while it is away\n")
	goesOut.expect("init while it is away")
	execIn.write("while it is away\n")
	execOut.expect("exec while it is away")
	shellIn.write("echo while it is a$()way\n")
	shellOut.expect("while it is away")
	endsIn.write("7\n")
	briefIn.write("5\n")
	for _, pid := range []uint32{ends.task.Pid(), brief.Pid()} {
		eventually(t, func() error { return aliveNot(int(pid)) })
	}

	events := comesBack(t, d)
	for _, b := range []*box{goes, ends, paused, shell} {
		b.reload()
	}

	t.Run("exit of a container", func(t *testing.T) {
		status, err := ends.task.Status(ends.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if status.Status != containerd.Stopped || status.ExitStatus != 7 || status.ExitTime.Before(killed) || status.ExitTime.After(time.Now()) {
			t.Errorf("the task that ended meanwhile is %+v, want it stopped with 7 after %s", status, killed)
		}
		if row := listed(t, d, ends.ID()); row.status != "STOPPED" {
			t.Errorf("ctr tasks ls shows %+v", row)
		}
		if code := ends.wait(ends.task)(); code != 7 {
			t.Errorf("Wait says %d, want 7", code)
		}
		pid := ends.task.Pid()
		if code := ends.delete(); code != 7 {
			t.Errorf("Delete says %d, want 7", code)
		}
		toldSinceRestart(t, events, ends.ID(),
			daemon.Event{Topic: "/tasks/exit", ContainerID: ends.ID(), PID: pid, ExitStatus: 7},
			daemon.Event{Topic: "/tasks/delete", ContainerID: ends.ID(), PID: pid, ExitStatus: 7})
	})
	t.Run("exit of an exec", func(t *testing.T) {
		p, err := goes.task.LoadProcess(goes.ctx, "brief", nil)
		if err != nil {
			t.Fatal(err)
		}
		if code := goes.deleteExec(p); code != 5 {
			t.Errorf("Delete says %d, want 5", code)
		}
	})
	t.Run("streams", func(t *testing.T) {
		goes.status(containerd.Running)
		goesIn.write("when it is back\n")
		goesOut.expect("init when it is back")
		p, err := goes.task.LoadProcess(goes.ctx, "talks", nil)
		if err != nil {
			t.Fatal(err)
		}
		execIn.write("when it is back\n")
		execOut.expect("exec when it is back")
		if got := goes.output("new", "echo", "a new exec"); got != "a new exec\n" {
			t.Errorf("a new exec wrote %q", got)
		}
		ended := goes.wait(p)
		closeInput(t, goes, p, execIn)
		if code := ended(); code != 3 {
			t.Errorf("at the end of its input the exec ended with %d, want 3", code)
		}
		goes.deleteExec(p)
	})
	t.Run("terminal", func(t *testing.T) {
		if err := shell.task.Resize(shell.ctx, 90, 33); err != nil {
			t.Fatal(err)
		}
		shellIn.write("stty size\n")
		shellOut.expect("33 90")
		ended := shell.wait(shell.task)
		shellIn.write("exit 6\n")
		if code := ended(); code != 6 {
			t.Errorf("the shell ended with %d, want 6", code)
		}
		shell.delete()
	})
	t.Run("pause", func(t *testing.T) {
		paused.status(containerd.Paused)
		if err := paused.task.Resume(paused.ctx); err != nil {
			t.Fatal(err)
		}
		paused.status(containerd.Running)
		paused.end()
	})

	// Again, as a service manager does it.
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	goesIn.write("while it is away again\n")
	goesOut.expect("init while it is away again")
	if err := d.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	goes.reload()
	goes.status(containerd.Running)
	ended := goes.wait(goes.task)
	closeInput(t, goes, goes.task, goesIn)
	if code := ended(); code != 3 {
		t.Errorf("at the end of its input the container ended with %d, want 3", code)
	}
	goes.delete()
	nothingLeft(t, d)
}

// reload finds the container and its task again, with the client of the
// containerd that runs now. It must have the same process.
func (b *box) reload() {
	b.t.Helper()
	client, err := b.d.Client()
	if err != nil {
		b.t.Fatal(err)
	}
	pid := b.task.Pid()
	if b.Container, err = client.LoadContainer(b.ctx, b.Container.ID()); err != nil {
		b.t.Fatal(err)
	}
	if b.task, err = b.Task(b.ctx, nil); err != nil {
		b.t.Fatalf("the task of %s after the restart: %v", b.ID(), err)
	}
	if b.task.Pid() != pid {
		b.t.Errorf("%s was process %d and is %d after the restart", b.ID(), pid, b.task.Pid())
	}
}

// closeInput ends the input of a process: the client's end and the shim's.
func closeInput(t *testing.T, b *box, p containerd.Process, in *feed) {
	t.Helper()
	in.close()
	if err := p.CloseIO(b.ctx, containerd.WithStdinCloser); err != nil {
		t.Fatalf("close the input of %s: %v", p.ID(), err)
	}
}

// toldSinceRestart checks that exactly these events have come of a container,
// the last of which is its last.
func toldSinceRestart(t *testing.T, events *daemon.Events, id string, want ...daemon.Event) {
	t.Helper()
	got, err := events.Until(within(t, soon), id, func(list []daemon.Event) bool {
		return slices.Contains(list, want[len(want)-1])
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the events of %s since the restart are\n%s\nwant\n%s", id, eventLines(got), eventLines(want))
	}
}
