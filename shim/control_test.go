package shim

// The control service of a real daemon, asked by its own client.

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/control/client"
	task "github.com/containerd/containerd/api/runtime/task/v3"
)

func (d *daemon) control() *client.Client {
	d.t.Helper()
	c, err := client.Dial(bounded(d.t), d.socket)
	must(d.t, "dial the control service", err)
	d.t.Cleanup(func() { c.Close() })
	return c
}

// An operator looks into a shim because something hangs.
func TestControlAnswersAtOnceWhileTheRuntimeHangs(t *testing.T) {
	d := startDaemon(t, "exec sleep 1000")
	containerd(t, d.events)
	d.create()
	d.start()
	c := d.control()
	d.runtime.On(d.bundle, "pause", ocitest.Wait("go-on"))
	paused := make(chan error, 1)
	go func() {
		_, err := d.Pause(bounded(t), &task.PauseRequest{ID: daemonID})
		paused <- err
	}()
	eventually(t, "the runtime hangs", func() bool {
		i, err := c.Inspect(bounded(t))
		return err == nil && len(i.Calls) == 1
	})

	ask := func(what string, f func(context.Context) error) {
		t.Helper()
		var best time.Duration
		for n := range 5 { // the machine may be busy with something else
			began := time.Now()
			must(t, what, f(bounded(t)))
			if took := time.Since(began); n == 0 || took < best {
				best = took
			}
		}
		if best > 50*time.Millisecond {
			t.Errorf("%s took %s", what, best)
		}
	}
	var info control.Info
	var inspection control.Inspection
	var dump control.Dump
	ask("Info", func(ctx context.Context) (err error) { info, err = c.Info(ctx); return })
	ask("Inspect", func(ctx context.Context) (err error) { inspection, err = c.Inspect(ctx); return })
	ask("Dump", func(ctx context.Context) (err error) { dump, err = c.Dump(ctx); return })

	if info.PID != d.cmd.Process.Pid || info.Namespace != namespace || info.ID != daemonID || info.Containers != 1 || info.Execs != 0 || info.StateVersion == 0 || info.Started.IsZero() {
		t.Errorf("info is %+v", info)
	}
	if call := inspection.Calls[0]; call.Operation != "pause" || call.Container != daemonID || call.Age <= 0 {
		t.Errorf("the call under way is %+v", call)
	}
	served := inspection.State.Containers.Served
	if len(served) != 1 || served[0].ID != daemonID || served[0].Init.Operation != "pause" || served[0].Init.PID == 0 {
		t.Errorf("served are %+v", served)
	}
	var open []string
	for _, r := range inspection.Requests {
		open = append(open, r.Method)
	}
	// The answer to the Inspect before this one may still be leaving.
	if len(open) < 2 || open[0] != "Pause" || open[len(open)-1] != "Inspect" {
		t.Errorf("open requests are %v", open)
	}
	if n := inspection.Counters; n.Connections < 2 || n.Requests < 2 || n.Calls < 3 || n.Goroutines == 0 || n.Heap == 0 {
		t.Errorf("counters are %+v", n)
	}
	if !strings.Contains(dump.Stacks, "process.(*Process).carryOut") {
		t.Errorf("no trace of the pause in the stacks:\n%s", dump.Stacks)
	}
	if n := len(dump.Operations); n == 0 || dump.Operations[n-1].Operation != "start" || dump.Operations[n-1].Container != daemonID || dump.Operations[n-1].Took <= 0 {
		t.Errorf("last operations are %+v", dump.Operations)
	}

	must(t, "let the runtime go on", os.WriteFile(d.bundle.Path("go-on"), nil, 0o600))
	must(t, "pause", receive(t, "end of Pause", paused))
	d.remove()
	d.ends()
}
