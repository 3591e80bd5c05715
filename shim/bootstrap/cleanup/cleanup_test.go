package cleanup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
	task "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { built.Main(m) }

const (
	namespace = "ns"
	killed    = 137
)

// container is one bundle, and perhaps a container made by runc in it, whose
// shim is gone.
type container struct {
	t       *testing.T
	id      string
	bundle  oci.Bundle
	root    string // of the runtime's state, without the namespace
	runc    string
	sockets string
	options oci.Options
	pid     int
}

func newContainer(t *testing.T) *container {
	// Not t.TempDir: its paths are longer than that of a socket may be.
	dir, err := os.MkdirTemp("/tmp", "d")
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, id: "cleat-test-" + filepath.Base(dir), root: filepath.Join(dir, "root"), sockets: filepath.Join(dir, "s")}
	c.bundle = oci.Bundle(filepath.Join(dir, "ns", c.id))
	c.options = oci.Options{Root: c.root}
	for _, d := range []string{c.bundle.Rootfs(), c.sockets} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		unix.Unmount(c.bundle.Rootfs(), unix.MNT_DETACH)
		os.RemoveAll(dir)
	})
	return c
}

func (c *container) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) write(name, text string) {
	c.t.Helper()
	c.must(os.WriteFile(c.bundle.Path(name), []byte(text), 0o600))
}

// run makes the container run, with a mounted root filesystem, the way a
// shim does.
func (c *container) run() {
	c.t.Helper()
	if os.Geteuid() != 0 {
		c.t.Skip("must be root to run a container")
	}
	c.runc = built.Runc(c.t)
	c.must(unix.Mount("rootfs", c.bundle.Rootfs(), "tmpfs", 0, ""))
	program, err := os.ReadFile(built.Pause(c.t))
	c.must(err)
	c.must(os.WriteFile(filepath.Join(c.bundle.Rootfs(), "pause"), program, 0o755))
	c.call("spec", "-b", string(c.bundle))
	config, err := os.ReadFile(c.bundle.Path("config.json"))
	c.must(err)
	var spec map[string]any
	c.must(json.Unmarshal(config, &spec))
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/pause"}
	spec["linux"].(map[string]any)["cgroupsPath"] = "/" + c.id
	config, err = json.Marshal(spec)
	c.must(err)
	c.write("config.json", string(config))
	c.options.BinaryName = c.runc
	c.must(c.bundle.WriteOptions(c.options))
	// The process becomes our child, as it was the shim's: nobody else may be
	// there to reap it.
	c.must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	c.call("create", "-b", string(c.bundle), "--pid-file", c.bundle.InitPidFile(), c.id)
	c.call("start", c.id)
	c.pid = initPid(c.bundle)
	if c.pid == 0 {
		c.t.Fatal("runc told no pid")
	}
	c.t.Cleanup(func() { exec.Command(c.runc, "--root", filepath.Join(c.root, namespace), "delete", "-f", c.id).Run() })
}

func (c *container) call(args ...string) {
	c.t.Helper()
	cmd := exec.Command(c.runc, append([]string{"--root", filepath.Join(c.root, namespace)}, args...)...)
	var stderr bytes.Buffer
	if args[0] != "create" { // its container would hold the pipe
		cmd.Stderr = &stderr
	}
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("runc %v: %v: %s", args, err, stderr.String())
	}
}

// command is `delete` as containerd runs it.
func (c *container) command(args ...string) *exec.Cmd {
	cmd := exec.Command(built.Shim(c.t), append([]string{"-namespace", namespace, "-address", "/containerd.sock",
		"-publish-binary", "/usr/bin/containerd", "-id", c.id, "-bundle", string(c.bundle)}, append(args, "delete")...)...)
	cmd.Dir = string(c.bundle)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "MAX_SHIM_VERSION=2", "TTRPC_ADDRESS=/x", "GRPC_ADDRESS=/containerd.sock", "NAMESPACE="+namespace)
	return cmd
}

func (c *container) delete(args ...string) (exit *task.DeleteResponse, warnings string) {
	c.t.Helper()
	return c.finish(c.command(args...))
}

// finish runs a `delete`, which must succeed within containerd's five seconds.
func (c *container) finish(cmd *exec.Cmd) (exit *task.DeleteResponse, warnings string) {
	c.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if status := built.Run(c.t, cmd, 5*time.Second); status != 0 {
		c.t.Fatalf("delete: status %d: %s", status, stderr.String())
	}
	exit = &task.DeleteResponse{}
	if err := proto.Unmarshal(stdout.Bytes(), exit); err != nil {
		c.t.Fatalf("delete printed %q: %v", stdout.String(), err)
	}
	return exit, stderr.String()
}

// mustBeGone checks that nothing of a container that ran is left.
func (c *container) mustBeGone() {
	c.t.Helper()
	c.mustHaveEnded()
	if _, err := os.Stat(filepath.Join(c.root, namespace, c.id)); !errors.Is(err, fs.ErrNotExist) {
		c.t.Errorf("state of the runtime: %v", err)
	}
	c.mustHaveNoMountNorCgroup()
}

func (c *container) mustHaveEnded() {
	c.t.Helper()
	var status unix.WaitStatus
	if pid, err := unix.Wait4(c.pid, &status, unix.WNOHANG, nil); pid != c.pid || !status.Signaled() || status.Signal() != unix.SIGKILL {
		c.t.Errorf("init process %d: %d, %v, %x", c.pid, pid, err, status)
	}
}

func (c *container) mustHaveNoMountNorCgroup() {
	c.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	c.must(err)
	if strings.Contains(string(mounts), c.bundle.Rootfs()) {
		c.t.Error("the root filesystem is still mounted")
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + c.id)
	c.must(err)
	unified, err := filepath.Glob("/sys/fs/cgroup/" + c.id)
	c.must(err)
	if groups = append(groups, unified...); len(groups) != 0 {
		c.t.Errorf("cgroups are left: %v", groups)
	}
}

func (c *container) mustBe(exit *task.DeleteResponse, pid, status int, at time.Time) {
	c.t.Helper()
	if int(exit.Pid) != pid || int(exit.ExitStatus) != status || !exit.ExitedAt.AsTime().Equal(at) {
		c.t.Errorf("told pid %d, status %d at %s; it was pid %d, status %d at %s",
			exit.Pid, exit.ExitStatus, exit.ExitedAt.AsTime(), pid, status, at.UTC())
	}
}

// spy is an OCI runtime that notes its arguments and does what script says.
func (c *container) spy(script string) (binary string, calls func() string) {
	c.t.Helper()
	dir := c.t.TempDir()
	binary, notes := filepath.Join(dir, "spy"), filepath.Join(dir, "calls")
	c.must(os.WriteFile(binary, []byte("#!/bin/sh\necho \"$@\" >> "+notes+"\n"+script+"\n"), 0o755))
	return binary, func() string {
		text, _ := os.ReadFile(notes)
		return string(text)
	}
}

var recorded = oci.Exit{Timestamp: time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC), Pid: 4711, Status: 7}

// The most frequent of all: the daemon has done everything.
func TestDeleteOfAFinishedContainerRunsNothingAndSaysNothing(t *testing.T) {
	c := newContainer(t)
	spy, calls := c.spy("")
	c.options.BinaryName = spy
	c.must(c.bundle.WriteOptions(c.options))
	done := recorded
	done.Deleted = true
	c.must(c.bundle.WriteExit(done))
	exit, warnings := c.delete("-debug")
	c.mustBe(exit, 4711, 7, recorded.Timestamp)
	if warnings != "" || calls() != "" {
		t.Errorf("said %q, called the runtime with %q", warnings, calls())
	}
}

func TestDeleteAfterTheShimDied(t *testing.T) {
	for _, c := range []struct {
		name   string
		record bool
	}{{"with the exit recorded", true}, {"with nothing recorded", false}} {
		t.Run(c.name, func(t *testing.T) {
			before := time.Now()
			k := newContainer(t)
			k.run()
			if c.record {
				k.must(k.bundle.WriteExit(recorded))
			}
			exit, warnings := k.delete()
			if warnings != "" {
				t.Errorf("said %q", warnings)
			}
			k.mustBeGone()
			if c.record {
				k.mustBe(exit, 4711, 7, recorded.Timestamp)
				return
			}
			if at := exit.ExitedAt.AsTime(); int(exit.Pid) != k.pid || exit.ExitStatus != killed || at.Before(before) || at.After(time.Now()) {
				t.Errorf("told %v, pid was %d", exit, k.pid)
			}
			// And once more: nothing left to do is no error.
			if _, warnings := k.delete(); warnings != "" {
				t.Errorf("the second said %q", warnings)
			}
		})
	}
}

// runc answers that all is well when it does not know the container. Its
// processes would run on with nobody to know of them.
func TestDeleteKillsWhatTheRuntimeHasForgotten(t *testing.T) {
	c := newContainer(t)
	c.run()
	c.must(os.RemoveAll(filepath.Join(c.root, namespace, c.id)))
	exit, warnings := c.delete()
	if warnings != "" || int(exit.Pid) != c.pid || exit.ExitStatus != killed {
		t.Errorf("told %v, said %q", exit, warnings)
	}
	c.mustBeGone()
}

func TestDeleteWithoutTheRuntimeStillKills(t *testing.T) {
	c := newContainer(t)
	c.run()
	c.options.BinaryName = "/no/such/runtime"
	c.must(c.bundle.WriteOptions(c.options))
	_, warnings := c.delete()
	if !strings.Contains(warnings, "/no/such/runtime") {
		t.Errorf("said %q", warnings)
	}
	c.mustHaveEnded()
	c.mustHaveNoMountNorCgroup()
}

// containerd kills the action after five seconds; by then all the rest must
// be done.
func TestDeleteOutlastsARuntimeThatHangs(t *testing.T) {
	c := newContainer(t)
	c.run()
	c.options.BinaryName, _ = c.spy("exec sleep 60")
	c.must(c.bundle.WriteOptions(c.options))
	begin := time.Now()
	_, warnings := c.delete() // bounds it at five seconds
	if took := time.Since(begin); took < runtimeLimit {
		t.Errorf("gave up after %s", took)
	}
	if !strings.Contains(warnings, "no end within") {
		t.Errorf("said %q", warnings)
	}
	c.mustHaveEnded()
	c.mustHaveNoMountNorCgroup()
}

// A runtime that is killed once is called again: nobody comes after us.
func TestDeleteCallsARuntimeAgainThatWasKilled(t *testing.T) {
	c := newContainer(t)
	c.run()
	dir := t.TempDir()
	c.options.BinaryName, _ = c.spy(fmt.Sprintf(`[ -e %[1]s/killed ] && exec %[2]s "$@"; touch %[1]s/killed; kill -9 $$`, dir, c.runc))
	c.must(c.bundle.WriteOptions(c.options))
	if exit, warnings := c.delete(); warnings != "" || int(exit.Pid) != c.pid || exit.ExitStatus != killed {
		t.Errorf("told %v, said %q", exit, warnings)
	}
	c.mustBeGone()
}

// containerd runs the action twice when a shim dies during a create, and a client
// can make the container anew when the first has ended.
func TestDeleteLeavesANewBundleOfTheNameAlone(t *testing.T) {
	c := newContainer(t)
	dir := t.TempDir()
	c.options.BinaryName, _ = c.spy(fmt.Sprintf(`touch %[1]s/called; while [ ! -e %[1]s/new ]; do sleep 0.01; done`, dir))
	c.must(c.bundle.WriteOptions(c.options))
	cmd := c.command()
	c.must(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if _, err := os.Stat(filepath.Join(dir, "called")); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the action has ended without a call of the runtime: %v", err)
		case <-time.After(time.Millisecond): // the runtime tells nobody; the action ends it
		}
	}
	c.must(os.RemoveAll(string(c.bundle)))
	c.must(os.MkdirAll(c.bundle.Rootfs(), 0o755))
	c.must(unix.Mount("tmpfs", c.bundle.Rootfs(), "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(c.bundle.Rootfs(), unix.MNT_DETACH) })
	c.write("exit.json", "that of the new one")
	c.must(os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	c.must(err)
	if !strings.Contains(string(mounts), c.bundle.Rootfs()) {
		t.Error("the new root filesystem is unmounted")
	}
}

// The number in init.pid may be that of another process by now.
func TestDeleteSparesAStrangerWithThePid(t *testing.T) {
	stranger := exec.Command(built.Pause(t))
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	c := newContainer(t)
	c.options.BinaryName, _ = c.spy("")
	c.must(c.bundle.WriteOptions(c.options))
	c.write("init.pid", strconv.Itoa(stranger.Process.Pid))
	if exit, warnings := c.delete(); int(exit.Pid) != stranger.Process.Pid || warnings != "" {
		t.Errorf("told %v, said %q", exit, warnings)
	}
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stranger.Process.Pid)); err != nil || strings.Contains(string(state), ") Z ") {
		t.Errorf("the stranger was killed: %s, %v", state, err)
	}
}

func TestDeleteHonoursTheRecordedOptions(t *testing.T) {
	c := newContainer(t)
	spy, calls := c.spy("")
	c.options.BinaryName, c.options.SystemdCgroup = spy, true
	c.must(c.bundle.WriteOptions(c.options))
	c.delete()
	for _, want := range []string{"--root " + filepath.Join(c.root, namespace), "--systemd-cgroup", "delete --force " + c.id} {
		if !strings.Contains(calls(), want) {
			t.Errorf("called with %q, without %q", calls(), want)
		}
	}
}

// What containerd's own shim leaves in a bundle is read as well: the binary may
// have been replaced by ours meanwhile.
// A shim that died before it had chosen its options leaves what its start was
// told, from a file that may be gone by now.
func TestDeleteHonoursWhatTheStartWasTold(t *testing.T) {
	c := newContainer(t)
	binary, calls := c.spy("exit 0")
	c.write("said.json", fmt.Sprintf(`{"file": {"runtime": "mine", "runtimes": {"mine": {"path": %q, "root": "/configured", "args": ["--mine"]}}}}`, binary))
	if _, warnings := c.delete(); warnings != "" {
		t.Errorf("said %q", warnings)
	}
	if got := calls(); !strings.Contains(got, "--root /configured/"+namespace) || !strings.Contains(got, "--mine delete --force "+c.id) {
		t.Errorf("the runtime was called with %q", got)
	}

	c = newContainer(t)
	c.write("said.json", "{")
	if _, warnings := c.delete(); !strings.Contains(warnings, "read the configuration kept in the bundle") {
		t.Errorf("of a broken record it says %q", warnings)
	}
}

func TestDeleteReadsTheBundleOfContainerdsShim(t *testing.T) {
	c := newContainer(t)
	spy, calls := c.spy("")
	c.write("options.json", `{"binary_name":"`+spy+`","root":"`+c.root+`","systemd_cgroup":false}`)
	c.write("runtime", spy)
	c.write("exit.json", `{"Timestamp":"2026-03-04T05:06:07.000000089Z","Pid":4711,"Status":7}`)
	exit, warnings := c.delete()
	c.mustBe(exit, 4711, 7, recorded.Timestamp)
	if warnings != "" || !strings.Contains(calls(), "delete --force "+c.id) {
		t.Errorf("said %q, called with %q", warnings, calls())
	}
}

func TestDeleteBearsFilesThatAreMissingOrBroken(t *testing.T) {
	for _, c := range []struct {
		name, warning string
		make          func(c *container)
	}{
		{"nothing but the bundle", "", func(c *container) {}},
		{"no rootfs", "", func(c *container) { c.must(os.Remove(c.bundle.Rootfs())) }},
		{"no bundle", "", func(c *container) { c.must(os.RemoveAll(string(c.bundle))) }},
		{"broken exit", "recorded exit", func(c *container) { c.write("exit.json", "{") }},
		{"broken options", "recorded options", func(c *container) { c.write("options.json", "[") }},
		{"broken pid", "", func(c *container) { c.write("init.pid", "-1") }},
		{"endless pid", "", func(c *container) { c.write("init.pid", strings.Repeat("1", 1<<20)) }},
		{"FIFO for a pid", "", func(c *container) { c.must(unix.Mkfifo(c.bundle.Path("init.pid"), 0o600)) }},
		{"address of no socket", "", func(c *container) { c.write("address", "unix://"+c.bundle.Path("init.pid")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newContainer(t)
			k.t = t
			spy, _ := k.spy("")
			k.must(os.Rename(spy, filepath.Join(filepath.Dir(spy), "runc")))
			c.make(k)
			cmd := k.command()
			if _, err := os.Stat(cmd.Dir); err != nil {
				cmd.Dir = "/"
			}
			cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(spy)+":"+os.Getenv("PATH"))
			exit, warnings := k.finish(cmd)
			if exit.ExitStatus != killed || exit.Pid != 0 {
				t.Errorf("told %v", exit)
			}
			if (c.warning == "") != (warnings == "") || !strings.Contains(warnings, c.warning) {
				t.Errorf("said %q, want %q", warnings, c.warning)
			}
		})
	}
}

// Without -bundle the bundle is looked for beside the working directory, which
// containerd may have removed already.
func TestDeleteFindsTheBundleBesideAFolderThatIsGone(t *testing.T) {
	c := newContainer(t)
	done := recorded
	done.Deleted = true
	c.must(c.bundle.WriteExit(done))
	gone := filepath.Join(filepath.Dir(string(c.bundle)), "gone")
	c.must(os.Mkdir(gone, 0o700))
	cmd := exec.Command("/bin/sh", "-c", `rmdir "$PWD" && exec "$@"`, "sh", built.Shim(t), "-namespace", namespace, "-address", "/a", "-id", c.id, "delete")
	cmd.Dir = gone
	exit, warnings := c.finish(cmd)
	c.mustBe(exit, 4711, 7, recorded.Timestamp)
	if warnings != "" {
		t.Errorf("said %q", warnings)
	}
}

func TestSeveralDeletesAtOnce(t *testing.T) {
	c := newContainer(t)
	c.run()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if exit, _ := c.delete(); exit.ExitStatus != killed {
				t.Errorf("told %v", exit)
			}
		})
	}
	all.Wait()
	c.mustBeGone()
}

func TestABusyRootfsIsDetached(t *testing.T) {
	c := newContainer(t)
	c.run()
	user := exec.Command(built.Pause(t))
	user.Dir = c.bundle.Rootfs()
	c.must(user.Start())
	defer user.Wait()
	defer user.Process.Kill()
	if _, warnings := c.delete(); warnings != "" {
		t.Errorf("said %q", warnings)
	}
	c.mustBeGone()
}

// listen makes a socket as a shim of the container has it.
func (c *container) listen() (*net.UnixListener, string) {
	c.t.Helper()
	path := filepath.Join(c.sockets, strings.Repeat("ab", 32))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	c.must(err)
	l.SetUnlinkOnClose(false)
	c.t.Cleanup(func() { l.Close() })
	c.must(c.bundle.WriteAddress("unix://" + path))
	return l, path
}

func TestDeleteRemovesOnlyASocketOnWhichNobodyListens(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		c := newContainer(t)
		c.options.BinaryName, _ = c.spy("")
		c.must(c.bundle.WriteOptions(c.options))
		done := recorded
		done.Deleted = deleted
		c.must(c.bundle.WriteExit(done))
		l, path := c.listen()
		if _, warnings := c.delete(); warnings != "" {
			t.Errorf("said %q", warnings)
		}
		if _, err := net.Dial("unix", path); err != nil {
			t.Errorf("the socket of a shim that lives: %v", err)
		}
		l.Close()
		if _, warnings := c.delete(); warnings != "" {
			t.Errorf("said %q", warnings)
		}
		if left, _ := os.ReadDir(c.sockets); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// The address file is the shim's, but what it names could be anything.
func TestDeleteRemovesNoFileThatIsNoSocket(t *testing.T) {
	c := newContainer(t)
	c.options.BinaryName, _ = c.spy("")
	c.must(c.bundle.WriteOptions(c.options))
	c.write("precious", "data")
	c.write("address", "unix://"+c.bundle.Path("precious"))
	c.delete()
	if _, err := os.Stat(c.bundle.Path("precious")); err != nil {
		t.Error(err)
	}
}

// containerd removes the bundle, and with it what the shim has left of a crash.
func TestDeleteTellsOfACrash(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		c := newContainer(t)
		if err := c.bundle.WriteExit(oci.Exit{Pid: 7, Status: 3, Timestamp: time.Now(), Deleted: deleted}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.bundle.CrashFile(), []byte("panic: of the test\n"+strings.Repeat("goroutine\n", 10000)), 0o600); err != nil {
			t.Fatal(err)
		}
		exit, warnings := c.delete()
		if exit.ExitStatus != 3 || exit.Pid != 7 {
			t.Errorf("delete answers %v", exit)
		}
		if !strings.Contains(warnings, "ended by a fault of its own") || !strings.Contains(warnings, "panic: of the test\n") || len(warnings) > 16<<10 {
			t.Errorf("it says %d bytes: %.500s", len(warnings), warnings)
		}
	}
}
