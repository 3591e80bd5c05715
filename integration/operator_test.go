package integration

// The operator's tool, used in a terminal as an operator would, on shims in every
// condition. Other shims run on this host at the same time, so all is asked of
// one namespace.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/terminal"
)

// operator is somebody with the tool before a terminal.
type operator struct {
	t     *testing.T
	place *place.Place
	env   []string // more than that of the place
}

func newOperator(t *testing.T, p *place.Place) operator {
	t.Helper()
	return operator{t: t, place: p}
}

func (o operator) cmd(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(within(o.t, soon), programs.Cleat, append(args, "-n", o.place.Namespace)...)
	cmd.Dir, cmd.Env = o.place.Dir, append(append(o.place.Environ(programs.Dir), "TERM=xterm"), o.env...)
	cmd.WaitDelay = soon
	return cmd
}

// types runs the tool in a terminal and returns what is shown when it has ended
// with code.
func (o operator) types(code int, args ...string) string {
	o.t.Helper()
	tty := terminal.Start(o.t, o.cmd(args...), 50, 250)
	if got := tty.End(); got != code {
		o.t.Errorf("cleat %s ended with %d, want %d:\n%s", strings.Join(args, " "), got, code, tty.Shown())
	}
	return strings.ReplaceAll(tty.Shown(), "\r", "")
}

// reads runs the tool for its JSON.
func (o operator) reads(v any, args ...string) {
	o.t.Helper()
	stdout, stderr, code := finish(o.t, o.cmd(append(args, "--json")...))
	if code != 0 || stderr != "" {
		o.t.Fatalf("cleat %s ended with %d: %s", strings.Join(args, " "), code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		o.t.Fatalf("cleat %s: %v:\n%s", strings.Join(args, " "), err, stdout)
	}
}

// shows checks that there is a line with all of these words.
func shows(t *testing.T, text string, words ...any) {
	t.Helper()
next:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, fmt.Sprint(w)) {
				continue next
			}
		}
		return
	}
	t.Errorf("no line has %q:\n%s", words, text)
}

// says checks that a failure is one sentence, and which.
func (o operator) says(code int, words string, args ...string) {
	o.t.Helper()
	stdout, stderr, got := finish(o.t, o.cmd(args...))
	if got != code || stdout != "" || !strings.HasPrefix(stderr, "cleat: ") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, words) {
		o.t.Errorf("cleat %s ended with %d (want %d, and %q):\n%s%s", strings.Join(args, " "), got, code, words, stdout, stderr)
	}
}

// shimEntry is what `cleat ps --json` has of a shim, as far as tests look at it.
type shimEntry struct {
	Kind, Namespace, ID, Silent string
	PID                         int
	Program                     struct {
		Pending   bool
		Installed string
	}
	Process struct{ Private uint64 }
	Info    *struct {
		Release           string
		Containers, Execs int
		Started           time.Time
	}
}

// The shell completes ids, and there is a manual.
func TestOperatorIsHelped(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	m := l.member("completed").run()
	out, _, code := finish(t, exec.CommandContext(within(t, soon), programs.Cleat, "__complete", "-n", l.Namespace, "inspect", ""))
	if code != 0 || !strings.HasPrefix(out, "completed\t"+l.Namespace+"\n") {
		t.Errorf("the shell is offered %q", out)
	}
	for _, command := range []string{"ps", "inspect", "dump", "upgrade", "doctor"} {
		text := o.types(0, command, "--help")
		shows(t, text, "Usage:")
		shows(t, text, "cleat "+command)
		shows(t, text, "--json")
	}
	pages := l.Path("man")
	if err := os.Mkdir(pages, 0o755); err != nil {
		t.Fatal(err)
	}
	o.types(0, "man", pages)
	page, err := os.ReadFile(filepath.Join(pages, "cleat-upgrade.8"))
	if err != nil || !strings.Contains(string(page), "dry\\-run") && !strings.Contains(string(page), "dry-run") {
		t.Errorf("the manual page of cleat upgrade: %v:\n%s", err, page)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out, _, code := finish(t, exec.CommandContext(within(t, soon), programs.Cleat, "completion", shell)); code != 0 || !strings.Contains(out, "__complete") {
			t.Errorf("completion for %s: %d, %q", shell, code, out)
		}
	}
	m.end()
}

// apart runs a command by unshare(1), with namespaces of its own.
func apart(t *testing.T, cmd *exec.Cmd, options ...string) *exec.Cmd {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args = unshare, append(append([]string{unshare}, options...), cmd.Args...)
	return cmd
}

// There is no containerd, and no process of a shim to be seen: it is found by its
// socket.
func TestOperatorOnAHostWithoutContainerd(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	m := l.member("hidden").run()
	alone := func(args ...string) *exec.Cmd {
		return apart(t, o.cmd(append(args, "--socket-dir", l.Sockets())...), "--pid", "--fork", "--mount-proc")
	}
	stdout, stderr, code := finish(t, alone("ps"))
	shows(t, stdout, l.Namespace, "hidden", " 1 ", " 0 ")
	if code != 0 || stderr != "" {
		t.Errorf("ps ended with %d: %s", code, stderr)
	}
	stdout, stderr, code = finish(t, alone("doctor", "containerd"))
	shows(t, stdout, "FAILURE", "containerd", "none runs")
	if code != 1 || stderr != "cleat: this host is not well: 1 failures\n" {
		t.Errorf("doctor ended with %d: %s", code, stderr)
	}
	stdout, _, _ = finish(t, alone("inspect", "hidden"))
	shows(t, stdout, "hidden", "running")
	m.end()
}

// The shim has mounts of its own, so that its socket is not where it says.
func TestOperatorReachesAShimWithMountsOfItsOwn(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	m := l.prepare("apart")
	start := apart(t, m.startAction(), "--mount", "sh", "-c", `mount -t tmpfs apart "$0" && exec "$@"`, l.Sockets())
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if sockets, err := os.ReadDir(l.Sockets()); err != nil || len(sockets) > 0 {
		t.Fatalf("the socket is to be seen: %v, %v", sockets, err)
	}
	var entries []shimEntry
	o.reads(&entries, "ps")
	if len(entries) != 1 || entries[0].Info == nil || entries[0].ID != "apart" || entries[0].Program.Pending {
		t.Fatalf("found %+v", entries)
	}
	shows(t, o.types(0, "inspect", "apart"), "socket", l.Sockets())
	shows(t, o.types(0, "upgrade", "apart", "--to", o.install("another", "x")), "1 of 1", "calls waited")
	if err := unix.Kill(entries[0].PID, unix.SIGKILL); err != nil { // it waits for its container
		t.Fatal(err)
	}
	eventually(t, func() error { return aliveNot(entries[0].PID) })
	m.clean()
}

func TestOperatorSeesShimsInEveryCondition(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	healthy := l.member("healthy", group("healthy")).run()
	second := l.member("second", group("healthy")).run()
	healthy.exec("burst", "sleep", "1000")
	g := newGate(t)
	stuck := l.prepare("stuck")
	stuck.options.BinaryName = scripted(t, `[ "$command" = pause ] && `+g.wait())
	stuck.boot().run()
	paused := make(chan error, 1)
	go func() {
		_, err := stuck.shim.Pause(stuck.ctx, &task.PauseRequest{ID: "stuck"})
		paused <- err
	}()
	g.reached()
	frozen := l.member("frozen").run()
	frozenPID := frozen.shimPID()
	if err := unix.Kill(frozenPID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(frozenPID, unix.SIGCONT)
	stock := l.prepare("stock")
	stock.program = programs.StockShim
	stock.boot().run()

	pid := healthy.shimPID()
	began := time.Now()
	list := o.types(0, "ps")
	if took := time.Since(began); took > soon/2 {
		t.Errorf("with a frozen shim the list took %s", took)
	}
	shows(t, list, "NAMESPACE", "GROUP", "PID", "VERSION", "MEMORY", "CONTAINERS", "EXECS", "AGE")
	shows(t, list, l.Namespace, "healthy", pid, "iB", " 2 ", " 1 ")
	shows(t, list, "stuck", stuck.shimPID(), " 1 ", " 0 ")
	shows(t, list, "frozen", frozenPID, "does not answer: it is stopped by a signal")
	shows(t, list, "stock", "containerd's own shim, left alone")
	if n := strings.Count(list, "\n"); n != 5 {
		t.Errorf("%d lines:\n%s", n, list)
	}

	var entries []shimEntry
	o.reads(&entries, "ps")
	if len(entries) != 4 {
		t.Fatalf("%+v", entries)
	}
	if e := entries[1]; e.ID != "healthy" || e.Kind != "cleat" || e.PID != pid || e.Info.Containers != 2 || e.Info.Execs != 1 || e.Program.Pending || e.Process.Private == 0 {
		t.Errorf("%+v", e)
	}

	for _, id := range []string{"healthy", "heal", strconv.Itoa(pid)} {
		text := o.types(0, "inspect", id)
		shows(t, text, "shim", "healthy", pid)
		shows(t, text, "healthy", "running")
		shows(t, text, "burst", "running")
		shows(t, text, "second", "running")
	}
	if text := o.types(0, "inspect", "second"); strings.Contains(text, "burst") {
		t.Errorf("one container is asked for and another one shown:\n%s", text)
	}
	text := o.types(0, "inspect", "stuck")
	shows(t, text, "stuck", "running", "pause")
	shows(t, text, "runtime", "1 under way")
	shows(t, text, "Pause", "stream")
	text = o.types(1, "inspect", "frozen")
	shows(t, text, "cleat: ", "does not answer: it is stopped by a signal; cleat dump frozen tells more")
	shows(t, text, "shim", "process", frozenPID, "stopped by a signal")
	shows(t, text, "bundle", frozen.bundle)
	shows(t, o.types(1, "inspect", "stuck", "--timeout", "1ns"), "cleat: ", "does not answer within 1ns (it is ")
	o.says(1, "is served by containerd's own shim", "inspect", "stock")
	o.says(1, `"s" stands for 3: `, "inspect", "s")
	o.says(1, "no shim or container has the id", "inspect", "nothing")
	o.says(2, "unknown command", "look")
	o.says(2, "unknown flag", "ps", "--look")
	o.says(2, "accepts 1 arg(s)", "inspect")

	if err := unix.Kill(frozenPID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	g.let()
	if err := <-paused; err != nil {
		t.Error(err)
	}
	stuck.resume()
	healthy.kill("burst", unix.SIGKILL)
	healthy.wait("burst")
	healthy.delete("burst")
	for _, m := range []*member{second, healthy, stuck, frozen, stock} {
		m.end()
	}
}
