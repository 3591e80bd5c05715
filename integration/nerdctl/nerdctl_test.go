// Package nerdctl tests the shim under the real nerdctl: its detached containers
// live on with a logging program of its own that the shim runs (binary://), and
// that writes files and rotates them.
package nerdctl

import (
	"bytes"
	"cmp"
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
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// The limits are for a slow machine; nothing waits for one to pass.
const (
	setUpTime  = 20 * time.Minute
	testTime   = 3 * time.Minute
	settleTime = 40 * time.Second // a logger that does not end gets 10 and 10 seconds
)

// Set by TestMain and not changed afterwards.
var (
	programs tools.Tools
	nerdctl  string
	runtime  = "io.containerd.cleat.v2"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	if name := os.Getenv("CLEAT_TEST_RUNTIME"); name != "" {
		runtime = name
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	var err, failed error
	programs, err = tools.Ensure(ctx, os.Stdout)
	nerdctl, failed = tools.EnsureNerdctl(ctx, os.Stdout)
	cancel()
	if err := errors.Join(err, failed); err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// user is somebody with nerdctl at a containerd of one test.
type user struct {
	*daemon.Daemon
	t   *testing.T
	ctx context.Context
}

func newUser(t *testing.T) *user {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	img, err := image.New(programs.Busybox)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := image.WriteFile(img, image.Name, file); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(ctx, daemon.Config{Tools: programs, Runtime: runtime, Image: file})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{d, t, ctx}
	t.Cleanup(func() {
		if t.Failed() {
			lines := strings.Split(d.Log(), "\n")
			t.Logf("containerd and the shims wrote:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// command is a nerdctl command, ready to run.
func (u *user) command(args ...string) *exec.Cmd {
	all := append([]string{
		"--address", u.Address(), "--namespace", u.Namespace, "--data-root", u.Path("nerdctl"),
		"--cni-path", programs.CNI, "--cni-netconfpath", u.Path("cni"), "--cgroup-manager", "cgroupfs",
	}, args...)
	cmd := exec.CommandContext(u.ctx, nerdctl, all...)
	cmd.Dir = u.Dir
	cmd.Env = append(u.Environ(programs.Dir), "NERDCTL_TOML="+u.Path("no.toml"))
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// ask runs nerdctl to its end.
func (u *user) ask(args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	cmd := u.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		u.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// do runs nerdctl, which must succeed, and returns what it wrote.
func (u *user) do(args ...string) string {
	u.t.Helper()
	out, errs, code := u.ask(args...)
	if code != 0 {
		u.t.Fatalf("nerdctl %s ended with %d:\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}

// run is the arguments of nerdctl run. The runc of the tests knows no seccomp.
func run(flags []string, command ...string) []string {
	return slices.Concat([]string{"run", "--runtime", runtime, "--net", "none", "--security-opt", "seccomp=unconfined"},
		flags, []string{image.Name}, command)
}

// becomes waits until nerdctl inspect tells want.
func (u *user) becomes(name, format, want string) {
	u.t.Helper()
	u.eventually(func() error {
		if got := u.do("inspect", "--format", format, name); got != want {
			return fmt.Errorf("%s of %s is %q, want %q", format, name, got, want)
		}
		return nil
	})
}

func (u *user) eventually(holds func() error) {
	u.t.Helper()
	deadline := time.Now().Add(settleTime)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			u.t.Fatal(err)
		}
		time.Sleep(pause)
	}
}

// loggers lists the logging programs that run.
func (u *user) loggers() (list []string) {
	for _, p := range u.Processes() {
		if strings.Contains(p.Command, "_NERDCTL_INTERNAL_LOGGING") {
			list = append(list, p.String())
		}
	}
	return list
}

// remove removes a container and looks at what is left: no logger either.
func (u *user) remove(name string) {
	u.t.Helper()
	u.do("rm", "--force", name)
	left := place.Settled(settleTime, func() []string {
		// An image that was unpacked stays, as do nerdctl's own records.
		return slices.DeleteFunc(u.Leftovers(u.ctx), func(line string) bool {
			return strings.HasPrefix(line, "snapshot sha256:")
		})
	})
	if len(left) > 0 {
		u.t.Errorf("left over:\n  %s", strings.Join(left, "\n  "))
	}
}

// logged reads the files of a container's log, the oldest first, as nerdctl's
// logger writes and rotates them.
func (u *user) logged(name string) (lines []string, files int) {
	u.t.Helper()
	path := u.do("inspect", "--format", "{{.LogPath}}", name)
	rotated, err := filepath.Glob(path + ".*")
	if err != nil {
		u.t.Fatal(err)
	}
	// The numbers of rotated files grow.
	number := func(path string) int {
		n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(path), "."))
		return n
	}
	slices.SortFunc(rotated, func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	for _, file := range append(rotated, path) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // rotated at this moment
		}
		text = text[:bytes.LastIndexByte(text, '\n')+1] // the next line may be half there
		for line := range bytes.Lines(text) {
			var entry struct{ Log string }
			if err := json.Unmarshal(line, &entry); err != nil {
				u.t.Fatalf("%s: %v: %q", file, err, line)
			}
			lines = append(lines, strings.TrimRight(entry.Log, "\n"))
		}
	}
	return lines, len(rotated) + 1
}

func TestRunExecLogsStopRemove(t *testing.T) {
	u := newUser(t)
	if out, errs, code := u.ask(run([]string{"--rm"}, "sh", "-c", "echo out; echo err >&2; exit 7")...); out != "out\n" || code != 7 {
		t.Errorf("run ended with %d and wrote %q and %q", code, out, errs)
	}
	u.do(run([]string{"--detach", "--name", "box"}, "sh", "-c", "trap 'echo bye; exit 9' TERM; echo out; echo err >&2; while :; do sleep 0.02; done")...)
	u.eventually(func() error {
		if out, errs, _ := u.ask("logs", "box"); out != "out\n" || errs != "err\n" {
			return fmt.Errorf("the logs are %q and %q", out, errs)
		}
		return nil
	})
	if out, errs, code := u.ask("exec", "box", "sh", "-c", "echo here; exit 5"); out != "here\n" || code == 0 || !strings.Contains(errs, "exit code 5") {
		t.Errorf("exec ended with %d and wrote %q and %q", code, out, errs)
	}
	u.do("pause", "box")
	u.becomes("box", "{{.State.Status}}", "paused")
	u.do("unpause", "box")
	u.do("stop", "box")
	u.becomes("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 9")
	if out, _, _ := u.ask("logs", "box"); out != "out\nbye\n" {
		t.Errorf("after the end the logs are %q", out)
	}
	u.remove("box")
}

// Much output of a container whose client has long gone is in the files that the
// logger rotates, to the last line, and the logger ends with the container.
func TestRotatedLogIsComplete(t *testing.T) {
	u := newUser(t)
	const lines = 20000
	u.do(run([]string{"--detach", "--name", "writer", "--log-opt", "max-size=100k", "--log-opt", "max-file=50"},
		"sh", "-c", fmt.Sprintf("trap 'exit 4' TERM; seq 1 %d; while :; do sleep 0.02; done", lines))...)
	u.eventually(func() error {
		// Not after the end: the logger then drops what it has not read yet.
		if got, _ := u.logged("writer"); len(got) < lines {
			return fmt.Errorf("the log has %d lines, want %d", len(got), lines)
		}
		return nil
	})
	u.do("stop", "writer")
	u.becomes("writer", "{{.State.Status}} {{.State.ExitCode}}", "exited 4")
	u.eventually(func() error {
		if list := u.loggers(); len(list) > 0 {
			return fmt.Errorf("still there: %q", list)
		}
		return nil
	})
	got, files := u.logged("writer")
	if files < 3 {
		t.Errorf("%d files: the log is not rotated", files)
	}
	for i, line := range got {
		if line != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %q", i+1, line)
		}
	}
	if len(got) != lines {
		t.Errorf("the log has %d lines, want %d", len(got), lines)
	}
	u.remove("writer")
}

// nerdctl's logger ends when containerd does. The container goes on, its logger is
// started again, and what the container writes from then on is in the log. Stock
// fails: the container gets SIGPIPE with its next line.
func TestLogGoesOnAfterContainerdWasKilled(t *testing.T) {
	u := newUser(t)
	u.do(run([]string{"--detach", "--name", "counts"}, "sh", "-c",
		"i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo $i; usleep 10000; done; echo last; while [ -e /tmp/end ]; do usleep 10000; done; exit 6")...)
	const pid = "{{.State.Pid}}"
	before := u.do("inspect", "--format", pid, "counts")
	reaches := func(n int) {
		t.Helper()
		u.eventually(func() error {
			lines, _ := u.logged("counts")
			if len(lines) > 0 {
				if last, _ := strconv.Atoi(lines[len(lines)-1]); last > n {
					return nil
				}
			}
			return fmt.Errorf("the log has %d lines: %.200q", len(lines), lines)
		})
	}
	reaches(10)
	if err := u.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := u.Run(u.ctx); err != nil {
		t.Fatal(err)
	}
	if after := u.do("inspect", "--format", pid, "counts"); after != before || after == "0" {
		t.Errorf("the container's process was %s and is %s", before, after)
	}
	lines, _ := u.logged("counts")
	last, _ := strconv.Atoi(lines[len(lines)-1])
	reaches(last + 100)
	u.do("exec", "counts", "touch", "/tmp/end")
	u.eventually(func() error {
		if lines, _ := u.logged("counts"); lines[len(lines)-1] != "last" {
			return fmt.Errorf("the last line is %q", lines[len(lines)-1])
		}
		return nil
	})
	// Not by an exec: the end of the container may be its own.
	if err := os.Remove(filepath.Join("/proc", before, "root/tmp/end")); err != nil {
		t.Fatal(err)
	}
	u.becomes("counts", "{{.State.Status}} {{.State.ExitCode}}", "exited 6")
	// What the old logger had read and not written is its own loss.
	lines, _ = u.logged("counts")
	missing, want := 0, 1
	for _, line := range lines[:len(lines)-1] {
		n, err := strconv.Atoi(line)
		if err != nil || n < want {
			t.Fatalf("a line is %q where at least %d is due", line, want)
		}
		missing, want = missing+n-want, n+1
	}
	t.Logf("%d of %d lines are missing", missing, want-1)
	u.remove("counts")
}
