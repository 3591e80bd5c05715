package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOperatorDumpsShimsThatAnswerAndThatDoNot(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	m := l.member("dumped").run()
	pid := m.shimPID()
	take := func(args ...string) string {
		t.Helper()
		file := l.Path("dump")
		defer os.Remove(file)
		shows(t, o.types(0, append([]string{"dump", "dumped", "-o", file}, args...)...), file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the dump is %v, %v", info.Mode(), err)
		}
		return string(text)
	}
	text := take()
	for _, want := range []string{"== stacks of goroutines ==", "goroutine ", "start", "SigCgt:", "wchan", `"Containers"`} {
		if !strings.Contains(text, want) {
			t.Errorf("a dump has no %q:\n%s", want, tail(text, 60))
		}
	}

	// Its socket's file is removed: it cannot be asked, but signalled.
	away := m.shim.Address + ".away"
	if err := os.Rename(m.shim.Address, away); err != nil {
		t.Fatal(err)
	}
	shows(t, o.types(0, "ps"), "dumped", pid, "cannot be reached: its socket")
	text = take()
	for _, want := range []string{"no state: the shim cannot be reached", "goroutine ", "SigCgt:"} {
		if !strings.Contains(text, want) {
			t.Errorf("a dump of a shim without a socket has no %q:\n%s", want, tail(text, 60))
		}
	}
	if _, err := os.Stat(m.bundle + "/dump.json"); err == nil {
		t.Error("the shim's file is left in the bundle")
	}
	if err := os.Rename(away, m.shim.Address); err != nil {
		t.Fatal(err)
	}

	// It is stopped: the kernel alone tells.
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(pid, unix.SIGCONT)
	text = take("--json")
	var d struct {
		Missing []string
		Dump    any
		Kernel  struct {
			Threads     []struct{ State string }
			Descriptors []struct{ Target string }
			Children    []struct{ PID int }
		}
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Missing) != 2 || !strings.Contains(d.Missing[1], "no signal is sent: it is stopped by a signal") || d.Dump != nil {
		t.Errorf("of a frozen shim is missing: %q", d.Missing)
	}
	if k := d.Kernel; len(k.Threads) == 0 || !strings.HasPrefix(k.Threads[0].State, "T") || len(k.Descriptors) < 3 || len(k.Children) != 1 {
		t.Errorf("the kernel knows %+v", k)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// Whoever has learnt SIGQUIT for Go's stacks ends nothing.
	if err := unix.Kill(pid, unix.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	o.says(1, "file exists", "dump", "dumped", "-o", programs.Shim)
	if again := m.shimPID(); again != pid {
		t.Errorf("the shim was process %d and is %d", pid, again)
	}
	m.end()
}
