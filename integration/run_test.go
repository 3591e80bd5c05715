package integration

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/terminal"
)

// TestCtrRun runs containers in the foreground in the ways that ctr offers.
// What the container writes and how it ends must be what ctr shows.
func TestCtrRun(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	for _, test := range []struct {
		name   string
		flags  []string
		args   []string
		stdin  string
		stdout string
		stderr string
		code   int
	}{
		{name: "output and status", args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, stdout: "out\n", stderr: "err\n", code: 3},
		{name: "stdin", args: []string{"sh", "-c", "cat; echo end"}, stdin: "one\ntwo\n", stdout: "one\ntwo\nend\n"},
		{name: "null-io", flags: []string{"--null-io"}, args: []string{"sh", "-c", "echo nobody hears this; exit 4"}, code: 4},
		{name: "killed", args: []string{"sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, code: 137},
		{name: "environment and folder", flags: []string{"--env", "A=b c", "--cwd", "/tmp"}, args: []string{"sh", "-c", `echo "$A" $PWD`}, stdout: "b c /tmp\n"},
		{name: "memory limit", flags: []string{"--memory-limit", "25165824"}, args: []string{"tail", "/dev/zero"}, code: 137},
		{name: "read-only", flags: []string{"--read-only"},
			args: []string{"sh", "-c", "touch /new"}, stderr: "touch: /new: Read-only file system\n", code: 1},
		{name: "nobody writes to /dev/stdout", flags: []string{"--user", "nobody"},
			args: []string{"sh", "-c", "id -u; echo out >/dev/stdout; echo err >/dev/stderr"}, stdout: "65534\nout\n", stderr: "err\n"},
		{name: "program is not there", args: []string{"/no/such/program"}, code: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := "run-" + strings.NewReplacer(" ", "-", "/", "").Replace(test.name)
			cmd := d.Ctr(bounded(t), run(append([]string{"--rm"}, test.flags...), id, test.args...)...)
			if test.stdin != "" {
				cmd.Stdin = strings.NewReader(test.stdin)
			}
			stdout, stderr, code := finish(t, cmd)
			if code != test.code || stdout != test.stdout || !strings.Contains(stderr, test.stderr) {
				t.Errorf("ctr run ended with %d, want %d\nstdout %q, want %q\nstderr %q, want %q in it",
					code, test.code, stdout, test.stdout, stderr, test.stderr)
			}
			nothingLeftOf(t, d, id)
		})
	}
}

// TestRunReportsTheRuntimesWords starts what cannot run: the user must read why
// in the words of the OCI runtime.
func TestRunReportsTheRuntimesWords(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	_, stderr, code := finish(t, d.Ctr(bounded(t), run([]string{"--rm"}, "words", "/no/such/program")...))
	const words = `exec: "/no/such/program": stat /no/such/program: no such file or directory`
	if code == 0 || !strings.Contains(stderr, words) {
		t.Errorf("ctr run ended with %d and wrote %q, want %q in it", code, stderr, words)
	}
	nothingLeftOf(t, d, "words")
}

// TestRunPassesSignalsOn sends ctr a signal that is for the container. It is one
// that does ctr no harm before it begins to pass signals on.
func TestRunPassesSignalsOn(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	cmd := d.Ctr(bounded(t), run([]string{"--rm"}, "signal", "sh", "-c", "trap 'exit 9' WINCH; while :; do sleep 0.01; done")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with ctr, which ends with the test
		cmd.Wait()
		close(ended)
	}()
	eventually(t, func() error {
		cmd.Process.Signal(unix.SIGWINCH)
		select {
		case <-ended:
			return nil
		default:
			return fmt.Errorf("ctr and the container go on in spite of SIGWINCH")
		}
	})
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("ctr ended with %d, want 9", code)
	}
	nothingLeftOf(t, d, "signal")
}

// TestRunDetached leaves a container that ctr has started.
func TestRunDetached(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	const id = "detached"
	ctr(t, d, run([]string{"-d"}, id, forever...)...)
	task := listed(t, d, id)
	if task.status != "RUNNING" {
		t.Fatalf("after ctr run -d the task is %+v", task)
	}
	catches(t, uint32(task.pid), unix.SIGTERM)
	ctr(t, d, "tasks", "kill", id)
	endDetached(t, d, id, 9)
}

// endDetached waits for the end of a task and removes it and its container
// with ctr.
func endDetached(t *testing.T, d *daemon.Daemon, id string, want int) {
	t.Helper()
	eventually(t, func() error {
		if task := listed(t, d, id); task.status != "STOPPED" {
			return fmt.Errorf("the task of %s is %+v, want it STOPPED", id, task)
		}
		return nil
	})
	if code := deleteTask(t, d, id); code != want {
		t.Errorf("%s ended with exit code %d, want %d", id, code, want)
	}
	ctr(t, d, "containers", "rm", id)
	nothingLeftOf(t, d, id)
}

// TestRunOnTerminal runs a shell in a window, changes the window's size, types,
// and reads.
func TestRunOnTerminal(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	ctx := bounded(t)
	const id = "on-terminal"
	tty := terminal.Start(t, d.Ctr(ctx, run([]string{"--rm", "-t"}, id, "sh")...), 20, 70)
	tty.Write("tty; " + untilSize(20, 70) + "echo is 20 by $((35*2))\n")
	tty.Expect("is 20 by 70")
	tty.Expect("/dev/pts/0")

	tty.Resize(40, 120)
	tty.Write(untilSize(40, 120) + "echo is 40 by $((60*2))\n")
	tty.ExpectResized("is 40 by 120")

	// Ctrl-C is for what runs in the container, not for ctr.
	tty.Write("sleep 1000\n")
	eventually(t, func() error {
		if text := ctr(t, d, "tasks", "exec", "--exec-id", "ps", id, "ps"); !strings.Contains(text, "sleep 1000") {
			return fmt.Errorf("sleep does not run:\n%s", text)
		}
		return nil
	})
	tty.Write("\x03")
	tty.Write("echo status $?\n")
	tty.Expect("status 130")

	tty.Write("exit 12\n")
	if code := tty.End(); code != 12 {
		t.Errorf("ctr ended with %d, want 12; the terminal showed:\n%s", code, tty.Shown())
	}
	nothingLeftOf(t, d, id)
}

// TestTerminalIsAttachedAgain leaves a shell on a terminal and comes back to it
// from another terminal.
func TestTerminalIsAttachedAgain(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	ctx := bounded(t)
	const id = "attached"
	first := terminal.Start(t, d.Ctr(ctx, "run", "--runtime", runtimeName, "-d", "-t", image.Name, id, "sh"), 24, 80)
	if code := first.End(); code != 0 {
		t.Fatalf("ctr run -d -t ended with %d:\n%s", code, first.Shown())
	}
	for i, size := range [][2]uint16{{25, 81}, {26, 82}} {
		again := terminal.Start(t, d.Ctr(ctx, "tasks", "attach", id), size[0], size[1])
		again.Write(untilSize(int(size[0]), int(size[1])) + "n=$((n+1)); echo attached $n\n")
		again.Expect(fmt.Sprintf("attached %d", i+1))
		if i == 0 {
			again.Signal(unix.SIGKILL) // the window is closed
			again.End()
		} else {
			again.Write("exit 13\n")
			again.Expect("exit 13")
			if code := again.End(); code != 13 {
				t.Errorf("ctr attach ended with %d, want 13, and showed:\n%s", code, again.Shown())
			}
		}
	}
	// ctr attach deletes the task.
	ctr(t, d, "containers", "rm", id)
	nothingLeftOf(t, d, id)
}
