package integration

// OCI runtimes that are scripts around the real one: they stop where a test
// wants something to happen first, or fail where runc would not.

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scripted makes an OCI runtime of a shell script. The script finds the command
// (create, exec, …) in $command, the arguments in $@, the argument of --pid-file
// in $pidfile, can call runc, and can wait until a process is dead. If it does
// not end by itself, runc is run with the arguments as they came.
func scripted(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runtime")
	text := fmt.Sprintf(`#!%[1]s sh
busybox=%[1]s
runc() { %[2]s "$@"; }
dead() { while $busybox grep -q '^State:.[^ZX]' /proc/$1/status 2>/dev/null || [ $($busybox ls /proc/$1/task 2>/dev/null | $busybox wc -l) -gt 1 ]; do $busybox usleep 1000; done; }
command= pidfile= last=
for a; do
	case $last in
	--root|--log|--log-format) a= ;;
	--pid-file) pidfile=$a ;;
	esac
	last=$a
	case $a in ''|-*) continue ;; esac
	[ -n "$command" ] || command=$a
done
%[3]s
exec %[2]s "$@"
`, programs.Busybox, programs.Runc, body)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// gate is a point at which a script waits for the test.
type gate struct {
	t          *testing.T
	dir        string
	here, open *os.File
}

// newGate makes a gate, which is closed. When the test ends, scripts that wait
// at it go on.
func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{t: t, dir: t.TempDir()}
	for name, file := range map[string]**os.File{"here": &g.here, "open": &g.open} {
		path := filepath.Join(g.dir, name)
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		// For both directions, so that neither side waits for the other to open it.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		*file = f
	}
	return g
}

// wait is the shell command by which a script stops at the gate.
func (g *gate) wait() string {
	return fmt.Sprintf("{ echo >%[1]s/here; read _ <%[1]s/open; }", g.dir)
}

// reached waits until a script has come to the gate.
func (g *gate) reached() {
	g.t.Helper()
	g.here.SetReadDeadline(time.Now().Add(soon))
	var word [1]byte
	if _, err := g.here.Read(word[:]); err != nil {
		g.t.Fatalf("no script comes to the gate: %v", err)
	}
}

// let lets one script through. It may come later.
func (g *gate) let() {
	g.t.Helper()
	// One byte: two that wait cannot take half a line each.
	if _, err := g.open.Write([]byte("\n")); err != nil {
		g.t.Fatal(err)
	}
}
