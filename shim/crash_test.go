package shim

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
)

// panicFile in its working directory makes a daemon of the tests panic, outside
// of every handler.
const panicFile = "panic"

func panicIfAsked() {
	for ; ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(panicFile); err == nil {
			panic("of the test")
		}
	}
}

// crashed waits for the end and checks what is left in a bundle.
func (d *daemon) crashed(bundle oci.Bundle, want ...string) {
	d.t.Helper()
	if err := receive(d.t, "the daemon's end", d.ended); err == nil {
		d.t.Error("the daemon ended in good order")
	}
	d.ended = nil
	text, err := bundle.ReadCrash()
	must(d.t, "read the report", err)
	for _, words := range append(want, "goroutine ") {
		if !strings.Contains(text, words) {
			d.t.Errorf("the report lacks %q:\n%s", words, text)
		}
	}
}

// Stock's goes into a FIFO that nobody may read, and is gone (#4274, #47757 of
// moby).
func TestCrashLeavesAReport(t *testing.T) {
	started := func(t *testing.T) *daemon {
		d := startDaemon(t, "exec sleep 1000")
		containerd(t, d.events)
		d.create()
		d.start()
		text, err := d.bundle.ReadCrash()
		must(t, "read the report", err)
		if text != "" {
			t.Errorf("a shim that lives has reported:\n%s", text)
		}
		pid := int(stateOf(d).Pid)
		t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
		return d
	}
	t.Run("panic", func(t *testing.T) {
		d := started(t)
		d.runtime.Touch(d.bundle, panicFile)
		d.crashed(d.bundle, "panic: of the test", "panicIfAsked")
	})
	t.Run("signal", func(t *testing.T) {
		d := started(t)
		must(t, "signal", d.cmd.Process.Signal(syscall.SIGSEGV))
		d.crashed(d.bundle, "SIGSEGV")
	})
	t.Run("after an upgrade", func(t *testing.T) {
		d := started(t)
		d.upgrade(d.control())
		must(t, "signal", d.cmd.Process.Signal(syscall.SIGABRT))
		d.crashed(d.bundle, "SIGABRT")
	})
	// The containers that are left are told of it, too.
	t.Run("first bundle is gone", func(t *testing.T) {
		d := started(t)
		other := d.runtime.Bundle("other", "exec sleep 1000")
		created, err := d.Create(bounded(t), &task.CreateTaskRequest{ID: "other", Bundle: string(other),
			Options: sent(packed(t, &runcoptions.Options{BinaryName: d.runtime.Path(), Root: d.runtime.Root()}))})
		must(t, "create another", err)
		t.Cleanup(func() { syscall.Kill(int(created.Pid), syscall.SIGKILL) })
		d.remove()
		must(t, "remove the bundle", os.RemoveAll(string(d.bundle)))
		must(t, "signal", d.cmd.Process.Signal(syscall.SIGSEGV))
		d.crashed(other, "SIGSEGV")
	})
}

func stateOf(d *daemon) *task.StateResponse {
	d.t.Helper()
	s, err := d.State(bounded(d.t), &task.StateRequest{ID: daemonID})
	must(d.t, "state", err)
	return s
}
