package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

// open counts the test's descriptors.
func open(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, "list descriptors", err)
	return len(entries)
}

func mounted(t testing.TB, path string) bool {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, "read mounts", err)
	return strings.Contains(string(mounts), " "+path+" ")
}

// A create that fails leaves nothing, whichever of its steps it is, and no event
// is told of what never was (containerd's TestRegressionIssue6429).
func TestFailedCreateLeavesNothing(t *testing.T) {
	tmpfs := []oci.Mount{{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}}}
	for _, c := range []struct {
		name    string
		rootfs  []oci.Mount
		spec    stdio.Spec
		prepare func(t *testing.T, b *box)
		change  func(*Config)
		class   error
		says    string
		// undone tells that the runtime is asked to remove what it may have made.
		undone bool
	}{
		{name: "no spec", prepare: func(t *testing.T, b *box) { os.Remove(b.bundle.Path("config.json")) }, class: errdefs.ErrInvalidArgument, says: "config.json"},
		{name: "bad spec", prepare: func(t *testing.T, b *box) { os.WriteFile(b.bundle.Path("config.json"), []byte("{"), 0o600) }, class: errdefs.ErrInvalidArgument, says: "config.json"},
		{name: "no bundle", prepare: func(t *testing.T, b *box) { os.RemoveAll(string(b.bundle)) }, class: errdefs.ErrInvalidArgument, says: "config.json"},
		{name: "rootfs cannot be mounted", rootfs: append(tmpfs, oci.Mount{Type: "no-such-type", Source: "x"}), says: "mount rootfs"},
		{name: "no FIFO", rootfs: tmpfs, spec: stdio.Spec{Stdout: "/no/such/fifo"}, class: errdefs.ErrNotFound, says: "/no/such/fifo"},
		{name: "no logger", rootfs: tmpfs, spec: stdio.Spec{Stdout: "binary:///no/such/logger", Stderr: "binary:///no/such/logger"}, class: errdefs.ErrNotFound, says: "/no/such/logger"},
		{name: "no runtime", rootfs: tmpfs, change: func(c *Config) { c.Options.BinaryName = "/no/such/runtime" }, says: "/no/such/runtime"},
		{name: "runtime fails", rootfs: tmpfs, prepare: on("create", "fail 'as the test wants'"), says: "as the test wants", undone: true},
		{name: "runtime fails late", rootfs: tmpfs, prepare: after("create", "fail 'as the test wants'"), says: "as the test wants", undone: true},
		{name: "runtime tells no pid", rootfs: tmpfs, prepare: after("create", `: >"$pidfile"`), says: "told no pid", undone: true},
		{name: "runtime tells a wrong pid", rootfs: tmpfs, prepare: after("create", `echo 4194305 >"$pidfile"`), says: "process 4194305", undone: true},
		{name: "terminal does not come", rootfs: tmpfs, spec: stdio.Spec{Terminal: true}, prepare: on("create", "console=; exec >/dev/null 2>&1"), says: "sent no terminal", undone: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := DefaultLimits
			limits.Console = 100 * time.Millisecond
			b := newBox(t, boxOptions{spec: c.spec, limits: limits, change: func(config *Config) {
				config.Rootfs = c.rootfs
				if c.change != nil {
					c.change(config)
				}
			}})
			if c.prepare != nil {
				c.prepare(t, b)
			}
			descriptors := open(t)
			waited := make(chan error, 1)
			go func() { _, err := b.Init().Wait(bounded(t)); waited <- err }()

			err := b.Create(bounded(t))
			if err == nil || !strings.Contains(err.Error(), c.says) || c.class != nil && class(err) != c.class {
				t.Fatalf("error %v, want one of class %v that says %q", err, c.class, c.says)
			}
			receive(t, "the container is gone", b.gone)
			b.expect()
			// Of one that had a process it is known how that has ended.
			if err := receive(t, "the answer to a wait", waited); err != nil && !errdefs.IsNotFound(err) {
				t.Errorf("waiting for what never was: %v", err)
			}
			if b.runtime.Has(b.ID) {
				t.Error("the runtime has the container")
			}
			if mounted(t, b.bundle.Rootfs()) {
				t.Error("its root filesystem is mounted")
			}
			if c.name != "no bundle" {
				// The delete action reads the first two, the mount point is containerd's.
				left := slices.DeleteFunc(b.runtime.Left(b.bundle), func(name string) bool {
					return slices.Contains([]string{"options.json", "runtime", "rootfs"}, name)
				})
				if len(left) != 0 {
					t.Errorf("the bundle holds %q", left)
				}
				if calls := b.runtime.Calls(b.bundle); slices.Contains(calls, "delete") != c.undone {
					t.Errorf("calls of the runtime %q", calls)
				}
			}
			eventually(t, "no process is left", func() bool { return len(children()) == 0 })
			eventually(t, "all is closed", func() bool { return open(t) <= descriptors })
			// Nothing can be asked of it any more.
			for _, ask := range []func(context.Context) error{b.Start, b.Delete, b.Create, b.Pause} {
				if err := ask(bounded(t)); !errdefs.IsNotFound(err) {
					t.Errorf("asked of what never was: %v", err)
				}
			}
		})
	}
}

func on(command, script string) func(*testing.T, *box) {
	return func(t *testing.T, b *box) { b.runtime.On(b.bundle, command, script) }
}

func after(command, script string) func(*testing.T, *box) {
	return func(t *testing.T, b *box) { b.runtime.After(b.bundle, command, script) }
}

// A container that the runtime has already is somebody else's: the shim that
// fails to make it must not remove it.
func TestFailedCreateDoesNotRemoveWhatWasThereBefore(t *testing.T) {
	b := newBox(t, boxOptions{})
	other := exec.Command("/bin/sh", "-c", `printf '%s\n%s\n' "$1" $$ >"$0"; read end`,
		filepath.Join(b.runtime.Root(), namespace, b.ID), string(b.bundle))
	stdin, err := other.StdinPipe()
	must(t, "make pipe", err)
	must(t, "make the other container", other.Start())
	defer other.Wait()
	defer stdin.Close()
	eventually(t, "the other container is there", func() bool { return b.runtime.Has(b.ID) })
	if err := b.Create(bounded(t)); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("error %v", err)
	}
	if !b.runtime.Has(b.ID) {
		t.Error("the other container was removed")
	}
	if calls := b.runtime.Calls(b.bundle); !slices.Equal(calls, []string{"create"}) {
		t.Errorf("calls of the runtime %q", calls)
	}
}

// A creation that its client deletes before it has the answer is given up, and
// undone like a failed one.
func TestDeleteGivesUpACreationThatIsUnderWay(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.runtime.On(b.bundle, "create", "sleep 1000 & wait")
	created := b.inBackground(b.Init(), OpCreate, b.Create)
	if err := b.Delete(bounded(t)); !errdefs.IsNotFound(err) {
		t.Errorf("deleting: %v", err)
	}
	if err := receive(t, "the create's answer", created); !errdefs.IsUnavailable(err) {
		t.Errorf("creating: %v", err)
	}
	receive(t, "the container is gone", b.gone)
	b.expect()
	eventually(t, "no process is left", func() bool { return len(children()) == 0 })
}

// A container that was never started is deleted by ending it, with its exit told
// before its end.
func TestDeleteOfACreatedContainer(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			descriptors := open(t)
			b := newBox(t, boxOptions{spec: stdio.Spec{Terminal: terminal}})
			b.create()
			b.delete()
			b.expect("create", "exit", "delete")
			receive(t, "the container is gone", b.gone)
			if b.runtime.Has(b.ID) {
				t.Error("the runtime has the container")
			}
			if err := b.Delete(bounded(t)); !errdefs.IsNotFound(err) {
				t.Errorf("deleted again: %v", err)
			}
			// The runtime's folder holds the FIFO of the start open.
			eventually(t, "all is closed", func() bool { return open(t) <= descriptors+1 })
		})
	}
}

// A delete that fails can be asked again, and goes on where it stopped.
func TestDeleteThatFailedIsAskedAgain(t *testing.T) {
	b := newBox(t, boxOptions{change: func(c *Config) {
		c.Rootfs = []oci.Mount{{Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k"}}}
	}})
	b.run()
	must(t, "kill", b.Init().Kill(9, false))
	b.ends(128 + 9)
	b.runtime.On(b.bundle, "delete", "fail 'the cgroup is busy'")
	if err := b.Delete(bounded(t)); err == nil || !strings.Contains(err.Error(), "the cgroup is busy") {
		t.Errorf("error %v", err)
	}
	if s := b.Init().State(); s.State != Stopped || s.Exit.Status != 128+9 {
		t.Errorf("after a failed delete: %+v", s)
	}
	b.runtime.On(b.bundle, "delete", "")
	b.delete()
	b.expect("create", "start", "exit", "delete")
	if mounted(t, b.bundle.Rootfs()) {
		t.Error("its root filesystem is mounted")
	}
	receive(t, "the container is gone", b.gone)
}

// Somebody freezes the cgroup for a moment, in which the runtime looks.
func TestDeleteOfWhatWasFrozenForAMoment(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	b.run()
	b.ends(3)
	b.runtime.On(b.bundle, "delete", `[ -e "$bundle/once" ] || { >"$bundle/once"; fail 'cannot delete container that is not stopped: paused'; }`)
	b.delete()
	b.expect("create", "start", "exit", "delete")
}

// The runtime may have lost its state, by a reboot of its tmpfs or a delete of
// somebody else's.
func TestDeleteOfWhatTheRuntimeDoesNotKnow(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	b.run()
	b.ends(3)
	must(t, "remove the runtime's state", os.Remove(filepath.Join(b.runtime.Root(), namespace, b.ID)))
	b.delete()
	b.expect("create", "start", "exit", "delete")
}

func TestStartThatFailsCanBeAskedAgain(t *testing.T) {
	b := newBox(t, boxOptions{init: "exit 3"})
	b.create()
	b.runtime.On(b.bundle, "start", "fail 'a hook has failed'")
	if err := b.Start(bounded(t)); err == nil || !strings.Contains(err.Error(), "a hook has failed") {
		t.Errorf("error %v", err)
	}
	b.runtime.On(b.bundle, "start", "")
	b.start()
	b.ends(3)
	b.delete()
	b.expect("create", "start", "exit", "delete")
}

// The runtime's command may be told that it has succeeded although the bundle is
// gone by now: containerd removes those that it cannot load.
func TestBundleThatVanishesHoldsNothingUp(t *testing.T) {
	b := newBox(t, boxOptions{})
	b.run()
	must(t, "remove the bundle", os.RemoveAll(string(b.bundle)))
	must(t, "kill", b.Init().Kill(9, false))
	if _, err := b.Init().Wait(bounded(t)); err != nil {
		t.Errorf("waiting: %v", err)
	}
	if !b.told.said("record its exit") {
		t.Errorf("log %q", b.told.lines)
	}
	b.delete()
	receive(t, "the container is gone", b.gone)
}

// The clients of a terminal and of an exec in one: the real socket, the real pty.
func TestTerminalOfAContainerAndItsExecs(t *testing.T) {
	r := ocitest.New(t, namespace)
	out := mkfifo(t, r.Dir(), "out")
	b := newBoxOf(t, r, boxOptions{init: "stty size; read line; echo \"$line\"; exit 3", spec: stdio.Spec{Stdin: mkfifo(t, r.Dir(), "in"), Stdout: out, Terminal: true}})
	client := reads(t, out)
	b.create()
	must(t, "resize", b.Init().Resize(120, 40))
	b.start()
	execOut := mkfifo(t, r.Dir(), "exec-out")
	execClient := reads(t, execOut)
	// The program may run before the shim has its terminal; runtimes set its
	// size from the start when they are told.
	b.runtime.On(b.bundle, "exec", `cp "$process" "$bundle/seen"`)
	p := b.execOn("shell", `until [ "$(stty size)" != "0 0" ]; do :; done; stty size; tty >/dev/null && exit 4`, stdio.Spec{Stdout: execOut, Terminal: true})
	must(t, "resize before the start", p.Resize(100, 30))
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 4)
	if got := receive(t, "the end of the exec's output", execClient); got != "30 100\r\n" {
		t.Errorf("the exec wrote %q", got)
	}
	seen, err := os.ReadFile(b.bundle.Path("seen"))
	if err != nil || !strings.Contains(string(seen), `"consoleSize":{"height":30,"width":100}`) || !strings.Contains(string(seen), `"terminal":true`) {
		t.Errorf("the runtime was given %s, %v", seen, err)
	}
	must(t, "delete exec", p.DeleteExec(bounded(t)))
	in, err := os.OpenFile(filepath.Join(r.Dir(), "in"), os.O_WRONLY, 0)
	must(t, "open the input", err)
	in.WriteString("typed\n")
	in.Close()
	b.ends(3)
	if got := receive(t, "the end of the output", client); got != "40 120\r\ntyped\r\ntyped\r\n" && got != "typed\r\n40 120\r\ntyped\r\n" {
		t.Errorf("the container wrote %q", got)
	}
	b.delete()
}
