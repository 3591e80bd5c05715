// Package rootless tests the shim where nobody is root: containerd, ctr, runc and
// the shim run as an ordinary user who is root of a user namespace, as rootlesskit
// sets it up for rootless containerd, nerdctl and Docker: with a range of
// subordinate users, mount and network namespaces, a /run of its own, and no
// cgroup that it may write to.
package rootless

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// The limits are for a slow machine; nothing waits for one to pass.
const (
	setUpTime  = 20 * time.Minute
	testTime   = 3 * time.Minute
	settleTime = 30 * time.Second
)

// user is who is root inside: a number that is nobody's. firstSub is the first of
// its subordinate users.
const (
	user     = 1954321
	firstSub = 2954321
	subs     = 65535
)

// Set by TestMain and not changed afterwards.
var (
	programs tools.Tools
	runtime  = "io.containerd.cleat.v2"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	if name := os.Getenv("CLEAT_TEST_RUNTIME"); name != "" {
		runtime = name
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	var err error
	programs, err = tools.Ensure(ctx, os.Stdout)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// home is a user's namespaces and the containerd in them.
type home struct {
	*place.Place
	t          *testing.T
	ctx        context.Context
	holder     *exec.Cmd
	containerd *exec.Cmd
}

// enter makes the namespaces. The first process gets a /run of its own there and
// keeps them until its standard input ends.
const enter = `set -e
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/containerd
echo ready
while read -r _; do :; done`

func newHome(t *testing.T) *home {
	t.Helper()
	p, err := place.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	h := &home{Place: p, t: t, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			log, _ := os.ReadFile(h.Path("home", "containerd.log"))
			lines := bytes.Split(log, []byte("\n"))
			t.Logf("containerd and the shims wrote:\n%s", bytes.Join(lines[max(0, len(lines)-30):], []byte("\n")))
		}
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	})
	h.furnish()
	mapping := []syscall.SysProcIDMap{{ContainerID: 0, HostID: user, Size: 1}, {ContainerID: 1, HostID: firstSub, Size: subs}}
	h.holder = exec.Command("sh", "-c", enter)
	h.holder.Dir, h.holder.Env = h.Path("home"), h.env()
	h.holder.Stderr = os.Stderr
	h.holder.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		UidMappings: mapping, GidMappings: mapping, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{Uid: 0, Gid: 0},
		Setpgid:    true,
	}
	if _, err := h.holder.StdinPipe(); err != nil { // ends with the place's process
		t.Fatal(err)
	}
	out, err := h.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.holder.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 6)
	if n, err := out.Read(word); string(word[:n]) != "ready\n" {
		t.Fatalf("no namespaces: %q, %v", word[:n], err)
	}
	h.startContainerd()
	return h
}

// furnish fills the user's folder.
func (h *home) furnish() {
	h.t.Helper()
	must := func(err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	// Where the programs are built others may not be allowed to go.
	must(os.MkdirAll(h.Path("home", "bin"), 0o755))
	for _, program := range []string{programs.Containerd, programs.Ctr, programs.Shim, programs.StockShim, programs.Runc, programs.Cleat} {
		content, err := os.ReadFile(program)
		must(err)
		must(os.WriteFile(h.Path("home", "bin", filepath.Base(program)), content, 0o755))
	}
	img, err := image.New(programs.Busybox)
	must(err)
	files := mutate.Extract(img)
	defer files.Close()
	must(os.Mkdir(h.Path("home", "rootfs"), 0o755))
	untar := exec.Command(programs.Busybox, "tar", "-x", "-C", h.Path("home", "rootfs"))
	untar.Stdin = files
	must(untar.Run())
	must(os.WriteFile(h.Path("home", "config.toml"), fmt.Appendf(nil, `version = 3
root = %q
state = %q
temp = %q
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, h.Path("home", "root"), h.Path("home", "state"), h.Path("home", "ctemp"), h.Path("home", "c.sock"), h.Path("home", "opt")), 0o644))
	must(os.Mkdir(h.Path("home", "xdg"), 0o700))
	for _, dir := range []string{"home", "tmp", "fifo"} {
		must(filepath.WalkDir(h.Path(dir), func(path string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, user, user))
		}))
	}
}

func (h *home) env() []string {
	return append(h.Environ(h.Path("home", "bin")), "XDG_RUNTIME_DIR="+h.Path("home", "xdg"))
}

// command is a program of the user's, ready to run.
func (h *home) command(name string, args ...string) *exec.Cmd {
	all := append([]string{"--target", strconv.Itoa(h.holder.Process.Pid), "--user", "--mount", "--net", "--ipc", "--wd=/", "--", name}, args...)
	cmd := exec.CommandContext(h.ctx, "nsenter", all...)
	cmd.Env = h.env()
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// startContainerd starts containerd, for the first time or again.
func (h *home) startContainerd() {
	h.t.Helper()
	log, err := os.OpenFile(h.Path("home", "containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.containerd = h.command(h.Path("home", "bin", "containerd"), "--config", h.Path("home", "config.toml"))
	h.containerd.Stdout, h.containerd.Stderr = log, log
	h.containerd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.containerd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.eventually(func() error {
		if out, err := h.command(h.Path("home", "bin", "ctr"), "--address", h.Path("home", "c.sock"), "version").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// ask runs ctr to its end.
func (h *home) ask(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	if at := slices.IndexFunc(args, func(a string) bool { return a == "run" || a == "exec" }); at >= 0 {
		args = slices.Insert(args, at+1, "--fifo-dir", h.Fifos())
	}
	cmd := h.command(h.Path("home", "bin", "ctr"), append([]string{"--address", h.Path("home", "c.sock"), "--namespace", h.Namespace}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ctr runs ctr, which must succeed, and returns what it wrote.
func (h *home) ctr(args ...string) string {
	h.t.Helper()
	out, errs, code := h.ask(args...)
	if code != 0 {
		h.t.Fatalf("ctr %s ended with %d:\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// run is the arguments of ctr run. The container has no cgroup, as nerdctl asks
// for where none is delegated. The shell gets the place's folder as its name, so
// that the place knows the process for its own.
func (h *home) run(flags []string, id, script string) []string {
	h.t.Helper()
	var spec specs.Spec
	if err := json.Unmarshal([]byte(h.ctr("oci", "spec")), &spec); err != nil {
		h.t.Fatal(err)
	}
	spec.Process.Args = []string{"sh", "-c", script, h.Dir + "/"}
	spec.Process.Env = []string{"PATH=/bin"}
	spec.Root.Path = h.Path("home", "rootfs")
	spec.Linux.CgroupsPath = ""
	text, err := json.Marshal(spec)
	if err != nil {
		h.t.Fatal(err)
	}
	config := h.Path("home", id+".json")
	if err := os.WriteFile(config, text, 0o644); err != nil {
		h.t.Fatal(err)
	}
	return slices.Concat([]string{"run", "--runtime", runtime, "--config", config}, flags, []string{id})
}

func (h *home) eventually(holds func() error) {
	h.t.Helper()
	deadline := time.Now().Add(settleTime)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal(err)
		}
		time.Sleep(pause)
	}
}

// becomes waits until ctr tasks ls has the task in that state; with "" not at all.
func (h *home) becomes(id, want string) {
	h.t.Helper()
	h.eventually(func() error {
		got := ""
		for line := range strings.Lines(h.ctr("tasks", "ls")) {
			if field := strings.Fields(line); len(field) == 3 && field[0] == id {
				got = field[2]
			}
		}
		if got != want {
			return fmt.Errorf("task %s is %q, want %q", id, got, want)
		}
		return nil
	})
}

// delete deletes a container that has ended with a status.
func (h *home) delete(id string, status int) {
	h.t.Helper()
	if _, errs, code := h.ask("tasks", "delete", id); code != 0 || !strings.Contains(errs, fmt.Sprintf("exit code %d\"", status)) {
		h.t.Errorf("ctr tasks delete %s ended with %d and wrote %q, want the status %d", id, code, errs, status)
	}
	h.ctr("containers", "delete", id)
}

// nothingLeft looks for what containers leave: processes, FIFOs, bundles, and, in
// the namespaces, sockets of shims.
func (h *home) nothingLeft() {
	h.t.Helper()
	left := place.Settled(settleTime, func() []string {
		left := h.Leftovers(h.holder.Process.Pid, h.containerd.Process.Pid)
		for _, pattern := range []string{"home/state/io.containerd.runtime.v2.task/*/*", "home/root/io.containerd.runtime.v2.task/*/*", "home/xdg/*/*"} {
			found, _ := filepath.Glob(h.Path(pattern))
			left = append(left, found...)
		}
		out, _ := h.command("ls", "/run/containerd/s", "/run/containerd/runc/"+h.Namespace).Output()
		for _, name := range strings.Fields(string(out)) {
			if !strings.HasPrefix(name, "/run/") && !strings.HasSuffix(name, ".lock") {
				left = append(left, name)
			}
		}
		return left
	})
	if len(left) > 0 {
		h.t.Errorf("left over:\n  %s", strings.Join(left, "\n  "))
	}
}

// start runs a container in the background, which ends with 9 on SIGTERM.
func (h *home) start(id string) {
	h.t.Helper()
	h.ctr(h.run([]string{"--detach"}, id, "trap 'exit 9' TERM; >/tmp/"+id+"; while :; do sleep 0.02; done")...)
	h.eventually(func() error {
		_, err := os.Stat(h.Path("home", "rootfs", "tmp", id))
		return err
	})
}

func TestContainersOfAnOrdinaryUser(t *testing.T) {
	h := newHome(t)
	if out, errs, code := h.ask(h.run([]string{"--rm"}, "short", "echo out; echo err >&2; exit 7")...); out != "out\n" || !strings.HasSuffix(errs, "err\n") || code != 7 {
		t.Errorf("run ended with %d and wrote %q and %q", code, out, errs)
	}
	h.start("box")
	for _, p := range h.Processes() {
		if strings.Contains(p.Command, "containerd-shim-") {
			if info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.PID))); err != nil || info.Sys().(*syscall.Stat_t).Uid != user {
				t.Errorf("the shim is somebody else's: %v, %v", info, err)
			}
		}
	}
	if out, errs, code := h.ask("tasks", "exec", "--exec-id", "e", "box", "sh", "-c", "id -u; exit 5"); out != "0\n" || code != 5 {
		t.Errorf("exec ended with %d and wrote %q and %q", code, out, errs)
	}
	// There is no cgroup of its own: what is told is that of all the user's.
	h.ctr("tasks", "metrics", "box")
	// In the shim's cgroup there are others', too.
	if out := h.ctr("tasks", "ps", "box"); len(strings.Split(strings.TrimSpace(out), "\n")) != 2 {
		t.Errorf("ctr tasks ps shows\n%s", out)
	}
	h.ctr("tasks", "kill", "--signal", "SIGTERM", "box")
	h.becomes("box", "STOPPED")
	h.delete("box", 9)
	h.nothingLeft()
	log, err := os.ReadFile(h.Path("home", "containerd.log"))
	if err != nil || bytes.Contains(log, []byte("OOM")) {
		t.Errorf("that there are no OOM kills to watch is complained of: %v\n%s", err, log)
	}
}

// containerd is killed and started again: a container that ended meanwhile tells
// its status, and one that goes on is found, by a socket in the user's own /run.
func TestContainersOfAnOrdinaryUserOutliveContainerd(t *testing.T) {
	h := newHome(t)
	h.start("stays")
	h.start("ends")
	pid := ""
	for line := range strings.Lines(h.ctr("tasks", "ls")) {
		if field := strings.Fields(line); len(field) == 3 && field[0] == "ends" {
			pid = field[1]
		}
	}
	h.containerd.Process.Kill()
	h.containerd.Wait()
	if out, err := h.command("kill", "-TERM", pid).CombinedOutput(); err != nil {
		t.Fatalf("kill %s: %v: %s", pid, err, out)
	}
	h.eventually(func() error {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			return fmt.Errorf("process %s is still there", pid)
		}
		return nil
	})
	h.startContainerd()
	h.becomes("stays", "RUNNING")
	h.becomes("ends", "STOPPED")
	if out, errs, code := h.ask("tasks", "exec", "--exec-id", "e", "stays", "sh", "-c", "echo here; exit 5"); out != "here\n" || code != 5 {
		t.Errorf("exec ended with %d and wrote %q and %q", code, out, errs)
	}
	h.ctr("tasks", "kill", "--signal", "SIGTERM", "stays")
	h.becomes("stays", "STOPPED")
	for _, id := range []string{"stays", "ends"} {
		h.delete(id, 9)
	}
	h.nothingLeft()
}
