package shim

// Upgrades of a real daemon: this test binary replaces itself.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/control/client"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// ownProgram is the file of the test binary.
func ownProgram(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, "find the test binary", err)
	return path
}

func (d *daemon) upgrade(c *client.Client) control.Upgraded {
	d.t.Helper()
	upgraded, err := c.Upgrade(bounded(d.t), control.Upgrade{Path: ownProgram(d.t)})
	must(d.t, "upgrade", err)
	return upgraded
}

func TestUpgradeKeepsContainersExecsWaitsAndEvents(t *testing.T) {
	const rounds = 10
	d := startDaemon(t, "exec sleep 1000")
	d.create()
	d.start()
	c := d.control()
	before, err := d.State(bounded(t), &task.StateRequest{ID: daemonID})
	must(t, "state", err)

	type end struct {
		status uint32
		err    error
	}
	waited := make(chan end, 1)
	go func() {
		r, err := d.Wait(bounded(t), &task.WaitRequest{ID: daemonID})
		waited <- end{r.GetExitStatus(), err}
	}()
	for n := range rounds {
		upgraded := d.upgrade(c)
		if upgraded.Pause <= 0 || upgraded.Times.Arrived.IsZero() {
			t.Errorf("upgrade %d: %+v", n, upgraded)
		}
		after, err := d.State(bounded(t), &task.StateRequest{ID: daemonID})
		must(t, "state", err)
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("state was %v and is %v", before, after)
		}
	}
	info, err := c.Info(bounded(t))
	must(t, "info", err)
	if info.PID != d.cmd.Process.Pid || info.Upgrades != rounds || !info.Running.After(info.Started) {
		t.Errorf("info %+v", info)
	}
	events := containerd(t, d.events)
	_, err = d.Kill(bounded(t), &task.KillRequest{ID: daemonID, Signal: 9})
	must(t, "kill", err)
	if e := receive(t, "the end of the wait", waited); e.err != nil || e.status != 137 {
		t.Errorf("the wait from before the upgrades: %+v", e)
	}
	d.upgrade(c)
	_, err = d.Delete(bounded(t), &task.DeleteRequest{ID: daemonID})
	must(t, "delete", err)
	d.upgrade(c)
	c.Close()
	d.ends()
	want := []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"}
	if got := events.taken(); !slices.Equal(got, want) {
		t.Errorf("containerd has taken %q", got)
	}
}

// What cannot be the shim's program is refused in one sentence, and nothing has
// happened.
func TestBadProgramIsRefused(t *testing.T) {
	d := startDaemon(t, "exec sleep 1000")
	containerd(t, d.events)
	d.create()
	d.start()
	c := d.control()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := dir + "/" + name
		must(t, "write", os.WriteFile(path, []byte(text), mode))
		must(t, "chmod", os.Chmod(path, mode))
		return path
	}
	for path, want := range map[string]struct {
		class func(error) bool
		words string
	}{
		"relative":                 {errdefs.IsInvalidArgument, "is not an absolute path"},
		dir:                        {errdefs.IsInvalidArgument, "is a directory"},
		dir + "/x":                 {errdefs.IsNotFound, "does not exist"},
		"/dev/null":                {errdefs.IsInvalidArgument, "is not a regular file"},
		write("plain", "x", 0o644): {errdefs.IsInvalidArgument, "is not executable"},
		write("open", "x", 0o777):  {errdefs.IsInvalidArgument, "can be written by everybody"},
		write("garbage", "\x7fELF but not really", 0o755): {errdefs.IsFailedPrecondition, "cannot be run: exec format error"},
		"/bin/true":  {errdefs.IsFailedPrecondition, "is no cleat"},
		"/bin/false": {errdefs.IsFailedPrecondition, "is no cleat"},
	} {
		_, upgraded := c.Upgrade(bounded(t), control.Upgrade{Path: path})
		_, tried := c.Try(bounded(t), control.Upgrade{Path: path})
		for _, err := range []error{errgrpc.ToNative(upgraded), errgrpc.ToNative(tried)} {
			if err == nil || !want.class(err) || !strings.Contains(err.Error(), want.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if tried, err := c.Try(bounded(t), control.Upgrade{Path: ownProgram(t)}); err != nil || tried.Took <= 0 {
		t.Errorf("the trial of a good program: %+v, %v", tried, err)
	}
	info, err := c.Info(bounded(t))
	must(t, "info", err)
	if info.Upgrades != 0 || info.Started != info.Running {
		t.Errorf("info %+v", info)
	}
	d.remove()
	c.Close()
	d.ends()
}

// befall is what happens to this test binary when it is run under the name of a
// fault, tells whether it is only tried.
func befall(tried bool) {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	switch filepath.Base(path) {
	case "ends at once":
		os.Exit(3)
	case "panics at once":
		panic("at once")
	case "hangs when tried":
		if tried {
			select {}
		}
	case "hangs later":
		if !tried {
			arrival.Get()
			for n := 0; ; n++ { // not even the scheduler is asked
			}
		}
	case "fails later":
		trouble = func() error { return errors.New("it does not like it here") }
	case "panics later":
		trouble = func() error { panic("later") }
	case "cannot be run later":
		if tried {
			os.Chmod(path, 0o600)
		}
	}
}

// Whatever becomes of the new program before it has taken over, the old one goes
// on with everything and tells why.
func TestFailingProgramLeavesEverythingAsItWas(t *testing.T) {
	d := startDaemon(t, "exec sleep 1000")
	events := containerd(t, d.events)
	d.create()
	d.start()
	c := d.control()
	waited := make(chan error, 1)
	go func() {
		_, err := d.Wait(bounded(t), &task.WaitRequest{ID: daemonID})
		waited <- err
	}()
	dir := t.TempDir()
	for fault, words := range map[string]string{
		"ends at once":        "is no cleat, or a broken one (exit status 3)",
		"panics at once":      "panic: at once",
		"hangs when tried":    "does not tell within 5s whether it can take over",
		"hangs later":         "the new program gave the shim back: it was not ready within 1s",
		"fails later":         "the new program gave the shim back: it does not like it here",
		"panics later":        "the new program gave the shim back: panic: later",
		"cannot be run later": "permission denied",
	} {
		path := filepath.Join(dir, fault)
		text, err := os.ReadFile(ownProgram(t))
		must(t, "copy the test binary", err)
		must(t, "copy the test binary", os.WriteFile(path, text, 0o700))
		_, err = c.Upgrade(bounded(t), control.Upgrade{Path: path})
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", fault, err)
		}
		info, err := c.Info(bounded(t))
		must(t, fault+": info", err)
		if info.Upgrades != 0 || info.PID != d.cmd.Process.Pid || info.Containers != 1 {
			t.Errorf("%s: afterwards %+v", fault, info)
		}
		_, err = d.Pause(bounded(t), &task.PauseRequest{ID: daemonID})
		must(t, fault+": pause", err)
		_, err = d.Resume(bounded(t), &task.ResumeRequest{ID: daemonID})
		must(t, fault+": resume", err)
		must(t, "remove it", os.Remove(path))
	}
	d.upgrade(c)
	must(t, "signal", d.cmd.Process.Signal(syscall.SIGTERM)) // it is deaf to nothing
	d.says("terminated is ignored: 1 containers are served")
	select {
	case err := <-waited:
		t.Errorf("the wait from before has ended: %v", err)
	default:
	}
	d.remove()
	must(t, "the wait from before", receive(t, "its end", waited))
	c.Close()
	d.ends()
	if got := events.taken(); len(got) != 4+2*7 {
		t.Errorf("containerd has taken %q", got)
	}
}

// A call of the OCI runtime that does not end in time makes the upgrade fail, and
// nobody has noticed.
func TestUpgradeWaitsForTheRuntimeAndNotForEver(t *testing.T) {
	d := startDaemon(t, "exec sleep 1000")
	containerd(t, d.events)
	d.create()
	d.start()
	c := d.control()
	d.runtime.On(d.bundle, "pause", ocitest.Wait("go-on"))
	paused := make(chan error, 1)
	go func() {
		// Who asked is gone before the end.
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := d.Pause(short, &task.PauseRequest{ID: daemonID})
		paused <- err
	}()
	<-paused
	_, err := c.Upgrade(bounded(t), control.Upgrade{Path: ownProgram(t), Patience: 50 * time.Millisecond})
	if !errdefs.IsUnavailable(errgrpc.ToNative(err)) || !strings.Contains(err.Error(), `"pause" of container box does not end`) {
		t.Errorf("upgrade while the runtime hangs: %v", err)
	}
	go func() {
		_, err := d.Resume(bounded(t), &task.ResumeRequest{ID: daemonID}) // waits for the pause
		paused <- err
	}()
	eventually(t, "both calls are there", func() bool {
		i, err := c.Inspect(bounded(t))
		return err == nil && len(i.Calls) == 1 && len(i.Requests) >= 2
	})
	upgraded := make(chan error, 1)
	go func() {
		_, err := c.Upgrade(bounded(t), control.Upgrade{Path: ownProgram(t)})
		upgraded <- err
	}()
	eventually(t, "the upgrade is under way", func() bool {
		i, err := c.Inspect(bounded(t))
		return err == nil && slices.ContainsFunc(i.Requests, func(r control.Request) bool { return r.Method == control.MethodUpgrade })
	})
	_, err = c.Upgrade(bounded(t), control.Upgrade{Path: ownProgram(t)})
	if err == nil || !strings.Contains(err.Error(), "another upgrade is under way") {
		t.Errorf("a second upgrade: %v", err)
	}
	_, err = d.State(bounded(t), &task.StateRequest{ID: daemonID})
	must(t, "state meanwhile", err)
	must(t, "let the runtime go on", os.WriteFile(d.bundle.Path("go-on"), nil, 0o600))
	must(t, "upgrade", receive(t, "the upgrade", upgraded))
	must(t, "resume", receive(t, "the resume", paused))
	d.remove()
	c.Close()
	d.ends()
}
