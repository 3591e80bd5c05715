package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// doctorReport is what `cleat doctor --json` tells, as far as tests look at it.
type doctorReport struct {
	Findings  []struct{ Area, Name, Verdict, Found string }
	Leftovers []struct {
		Kind, Path, ID, Why, Error string
		Foreign, Removed           bool
	}
}

func TestOperatorExaminesTheHost(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	d := sharedDaemon(t)
	o := newOperator(t, d.Place)
	text := o.types(0, "doctor", "kernel", "cgroups", "containerd", "criu", "limits")
	shows(t, text, "ok", "pidfd", "works")
	shows(t, text, "ok", "splice", "works")
	shows(t, text, "ok", "mode", "v")
	shows(t, text, "ok", "memory", "there")
	shows(t, text, "containerd, process", d.PID())
	shows(t, text, "ok", "state", d.Path("state"))
	shows(t, text, "ok", "runtime io.containerd.cleat.v2", programs.Shim, "a shim of cleat")
	shows(t, text, "fs.pipe-max-size")
	shows(t, o.types(0, "doctor", "runtimes"), "ok", "runc", programs.Runc, "spec 1.")
	// The other kind of cgroups, where this host has the first: without controllers.
	text, _, _ = finish(t, apart(t, o.cmd("doctor", "cgroups"), "--mount", "sh", "-c", `umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$0" "$@"`))
	shows(t, text, "ok", "mode", "v2")
	shows(t, text, "ok", "cgroup.freeze", "there")
	shows(t, text, "cgroup.kill")
	o.says(2, `invalid argument "weather"`, "doctor", "weather")
}

// Shims die while containerd is away. What they leave is found and removed; what
// lives, or is of another make, is not touched.
func TestOperatorRemovesWhatDeadShimsHaveLeft(t *testing.T) {
	onlyOurs(t)
	d := ownDaemon(t, config())
	o := newOperator(t, d.Place)
	where := []string{"doctor", "leftovers", "--state", d.Path("state"), "--socket-dir", d.Sockets()}
	o.fixesWhileContainersComeAndGo(d, where)
	living := newBox(t, d, "living", forever).start(nil)
	unreachable := newBox(t, d, "unreachable", forever).start(nil)
	dead := newBox(t, d, "dead", forever).start(nil)
	foreign := newBoxWith(t, d, "foreign", []containerd.NewContainerOpts{containerd.WithRuntime("io.containerd.runc.v2", nil)}, oci.WithProcessArgs(forever...)).start(nil)
	pid, foreignPID, livingPID := int(dead.task.Pid()), int(foreign.task.Pid()), living.shimPID()
	socket := dead.shim().Address
	shims := []int{dead.shimPID(), foreign.shimPID()}
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, shim := range shims {
		if err := unix.Kill(shim, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return aliveNot(shim) })
	}
	orphan := d.Path("s", "orphan")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: orphan, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	tasks := filepath.Dir(d.Bundle("dead"))
	mount := filepath.Join(tasks, ".gone", "rootfs")
	if err := os.MkdirAll(mount, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("gone", mount, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	cgroups := makeCgroup(t, d, "gone")

	// One that lives is frozen, the socket of another one is gone.
	if err := unix.Kill(livingPID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(livingPID, unix.SIGCONT)
	away := unreachable.shim().Address
	if err := os.Rename(away, away+".away"); err != nil {
		t.Fatal(err)
	}

	text := o.types(1, where...)
	shows(t, text, "LEFT", "bundle", d.Bundle("dead"), "its shim is dead", "still runs", "1 mounts")
	shows(t, text, "note", "bundle", d.Bundle("foreign"), "its shim is dead")
	shows(t, text, "of another make, left alone")
	shows(t, text, "LEFT", "socket", orphan)
	shows(t, text, "LEFT", "mount", mount)
	shows(t, text, "LEFT", "cgroup", "/"+d.Namespace+"/gone")
	shows(t, text, "this host is not well: 4 things that dead shims have left")
	if strings.Contains(text, "living") || strings.Contains(text, "unreachable") {
		t.Errorf("a living shim has left something:\n%s", text)
	}
	if err := aliveNot(pid); err == nil {
		t.Fatal("who only looks has killed a container")
	}

	text = o.types(0, append(where, "--fix")...)
	for _, kind := range []string{"bundle", "socket", "mount", "cgroup"} {
		shows(t, text, "removed", kind)
	}
	eventually(t, func() error { return aliveNot(pid) })
	for _, path := range append(cgroups, d.Bundle("dead"), socket, orphan) {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if mounted, err := mountinfo.Mounted(mount); err != nil || mounted {
		t.Errorf("%s is still mounted: %v", mount, err)
	}
	for _, pid := range []int{livingPID, foreignPID} {
		if err := aliveNot(pid); err == nil {
			t.Errorf("process %d, which was not to be touched, has ended", pid)
		}
	}
	var r doctorReport
	o.reads(&r, where...)
	if len(r.Leftovers) != 1 || !r.Leftovers[0].Foreign || r.Leftovers[0].ID != "foreign" {
		t.Errorf("afterwards there is left over: %+v", r.Leftovers)
	}

	// containerd comes back and misses nothing.
	if err := os.Rename(away+".away", away); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(livingPID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Dir(mount))
	if err := d.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"dead", "living", "unreachable"} {
		c, err := client.LoadContainer(dead.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Task(dead.ctx, nil); errdefs.IsNotFound(err) != (id == "dead") {
			t.Errorf("the task of %s: %v", id, err)
		}
	}
}

// containerd removes a bundle that it cannot load, and whoever tidies up removes
// one by hand. What the OCI runtime keeps of the container then stays for good,
// and its id cannot be used again.
func TestOperatorRemovesWhatARuntimeKeepsOfABundleThatIsGone(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	d := ownDaemon(t, config())
	o := newOperator(t, d.Place)
	where := []string{"doctor", "leftovers", "--state", d.Path("state"), "--socket-dir", d.Sockets()}
	crun, file := ociRuntime(t, "crun"), d.Path("cleat.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[runtimes.crun]\npath = %q\n", crun), 0o644); err != nil {
		t.Fatal(err)
	}
	o.env = []string{"CLEAT_CONFIG=" + file}
	boxes := map[string]*box{}
	for _, id := range []string{"living", "gone", "crun", "running", "rooted", "neighbour"} {
		options := &runcoptions.Options{}
		if id == "crun" {
			options.BinaryName = crun
		}
		if id == "rooted" || id == "neighbour" { // which tells where the other's state is
			options.Root = d.Path("runc")
		}
		boxes[id] = newBoxWith(t, d, id, []containerd.NewContainerOpts{containerd.WithRuntime(runtimeName, options)}, oci.WithProcessArgs(forever...)).start(nil)
	}
	state := func(id string) string {
		if id == "rooted" {
			return filepath.Join(d.Path("runc"), d.Namespace, id)
		}
		return filepath.Join(d.RuntimeState(), id)
	}
	byHand(t, d, "hand", d.Bundle("living"))
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	end := func(pid int) {
		t.Helper()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error { return aliveNot(pid) })
	}
	for _, id := range []string{"gone", "crun", "running", "rooted"} {
		end(boxes[id].shimPID())
		if id != "running" {
			end(int(boxes[id].task.Pid()))
		}
		if err := unix.Unmount(filepath.Join(d.Bundle(id), "rootfs"), unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(d.Bundle(id)); err != nil {
			t.Fatal(err)
		}
	}
	// The shim of this one lives.
	away := d.Path("away")
	if err := os.Rename(d.Bundle("living"), away); err != nil {
		t.Fatal(err)
	}
	pid := int(boxes["running"].task.Pid())

	text := o.types(1, where...)
	shows(t, text, "LEFT", "state", state("gone"), "(its bundle is gone)")
	shows(t, text, "LEFT", "state", state("crun"), "(its bundle is gone)")
	shows(t, text, "LEFT", "state", state("rooted"), "(its bundle is gone)")
	shows(t, text, "LEFT", "state", state("running"), "its bundle is gone, its process", pid, "still runs")
	for _, id := range []string{"living", "hand", "neighbour"} {
		if strings.Contains(text, "/"+id) {
			t.Errorf("%s is taken for something left over:\n%s", id, text)
		}
	}
	text = o.types(1, append(where, "--fix")...)
	shows(t, text, "removed", "state", state("gone"))
	shows(t, text, "removed", "state", state("crun"))
	shows(t, text, "removed", "state", state("rooted"))
	shows(t, text, "LEFT", "state", state("running"))
	shows(t, text, "not removed: its process", pid, "still runs, and is for you to end")
	if err := aliveNot(pid); err == nil {
		t.Errorf("process %d, which is nobody's, has been ended", pid)
	}
	end(pid)
	shows(t, o.types(0, append(where, "--fix")...), "removed", "state", state("running"))
	shows(t, o.types(0, where...), "ok", "none")
	for _, id := range []string{"gone", "crun", "rooted", "running"} {
		if _, err := os.Lstat(state(id)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("state of %s: %v", id, err)
		}
	}
	for _, id := range []string{"living", "hand"} {
		if _, err := os.Lstat(state(id)); err != nil {
			t.Errorf("state of %s, which was not to be touched: %v", id, err)
		}
	}
	if err := os.Rename(away, d.Bundle("living")); err != nil {
		t.Fatal(err)
	}
	if err := d.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	again := newBox(t, d, "anew", forever) // the client's connection is to the new one
	if c, err := again.Task(again.ctx, nil); !errdefs.IsNotFound(err) {
		t.Errorf("%v, %v", c, err)
	}
}

// byHand makes a container without a shim, among the runtime's state of those of
// the namespace, with a bundle of its own that is removed; its process has ended.
func byHand(t *testing.T, d *daemon.Daemon, id, like string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(like, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Root.Path = filepath.Join(like, "rootfs")
	spec.Linux.CgroupsPath = "/" + d.Namespace + "-" + id
	if text, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	bundle := d.Path(id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	runc := func(args ...string) {
		t.Helper()
		cmd := exec.Command(programs.Runc, append([]string{"--root", d.RuntimeState()}, args...)...)
		if err := cmd.Run(); err != nil { // the container has its standard streams
			t.Fatalf("runc %s: %v", args, err)
		}
	}
	runc("create", "--bundle", bundle, id)
	t.Cleanup(func() { runc("delete", "--force", id) })
	runc("kill", id, "KILL")
	if err := os.RemoveAll(bundle); err != nil {
		t.Fatal(err)
	}
}

// fixesWhileContainersComeAndGo looks for leftovers, and would remove them, while
// containers of always the same names come and go: none of them is disturbed.
func (o operator) fixesWhileContainersComeAndGo(d *daemon.Daemon, where []string) {
	o.t.Helper()
	ctx := bounded(o.t)
	stop := make(chan struct{})
	var lives errgroup.Group
	var lived atomic.Int64
	for _, id := range []string{"one", "two", "three"} {
		lives.Go(func() error {
			for n := 0; ; n++ {
				select {
				case <-stop:
					o.t.Logf("%s has lived %d times", id, n)
					return nil
				default:
				}
				if out, err := d.Ctr(ctx, run([]string{"--rm"}, id, "echo", "alive")...).Output(); err != nil || string(out) != "alive\n" {
					return fmt.Errorf("life %d of %s: %w: %s", n, id, err, out)
				}
				lived.Add(1)
			}
		})
	}
	for n := upgrades(o.t, 3); (n > 0 || lived.Load() < 6) && !o.t.Failed() && ctx.Err() == nil; n-- {
		var r doctorReport
		o.reads(&r, append(where, "--fix")...)
		if len(r.Leftovers) > 0 {
			o.t.Errorf("living containers have left %+v", r.Leftovers)
		}
	}
	close(stop)
	if err := lives.Wait(); err != nil {
		o.t.Error(err)
	}
}

// makeCgroup makes an empty cgroup of the namespace in all hierarchies.
func makeCgroup(t *testing.T, d *daemon.Daemon, name string) (paths []string) {
	t.Helper()
	hierarchies, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hierarchies {
		parent := filepath.Join(h.Mountpoint, d.Namespace)
		if _, err := os.Stat(parent); err != nil {
			continue // no container has made it here
		}
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}
