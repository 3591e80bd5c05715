package shim

// Upgrades of a real daemon: this test binary replaces itself.

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/control"
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

func (d *daemon) upgrade(c *control.Client) control.Upgraded {
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
	d.runtime.Exec(d.bundle, "one", "sleep 1000")
	_, err := d.Exec(bounded(t), &task.ExecProcessRequest{ID: daemonID, ExecID: "one", Spec: packed(t, &task.ConnectRequest{})})
	_ = err
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
		_, err := c.Upgrade(bounded(t), control.Upgrade{Path: path})
		err = errgrpc.ToNative(err)
		if err == nil || !want.class(err) || !strings.Contains(err.Error(), want.words) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", path, err)
		}
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

var _ = time.Now
