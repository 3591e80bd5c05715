package driver

// A runtime that misbehaves is a small shell script here; what a good one does
// is asked of the real runc, with a root filesystem made of busybox.

import (
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

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
)

func TestMain(m *testing.M) {
	// As in the shim: the container's processes are ours once the runtime has
	// ended, and so is whatever else is left.
	if err := child.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	child.ReapOrphans()
	code := m.Run()
	if left := children(); left != "" {
		fmt.Printf("left behind: processes %s\n", left)
		code = 1
	}
	os.Exit(code)
}

// children of the test process, if the kernel lists them.
func children() (all string) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		list, _ := os.ReadFile(file) // its thread may have ended
		all += string(list)
	}
	return all
}

const container = "some-container"

// prelude puts what the runtime is called with into variables, and keeps the
// arguments.
const prelude = `#!/bin/sh
printf '%s\n' "$@" >"$0.args"
while :; do
	case "$1" in
	--root) root=$2; shift 2 ;;
	--log) log=$2; shift 2 ;;
	--log-format) shift 2 ;;
	--systemd-cgroup) shift ;;
	*) break ;;
	esac
done
command=$1
while [ $# -gt 0 ]; do
	case "$1" in
	--pid-file) pidfile=$2 ;;
	--process) process=$2 ;;
	--work-path) work=$2 ;;
	esac
	shift
done
`

// scripted is a runtime that is a shell script.
type scripted struct {
	*Runtime
	path   string
	bundle oci.Bundle
}

func newScripted(t testing.TB, body string) *scripted {
	t.Helper()
	return newScriptedWith(t, oci.Options{}, body)
}

func newScriptedWith(t testing.TB, options oci.Options, body string) *scripted {
	t.Helper()
	dir := t.TempDir()
	s := &scripted{path: filepath.Join(dir, "runtime"), bundle: oci.Bundle(filepath.Join(dir, "bundle"))}
	if err := os.Mkdir(string(s.bundle), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, s.path, prelude+body)
	if err := os.Chmod(s.path, 0o700); err != nil {
		t.Fatal(err)
	}
	options.BinaryName = s.path
	s.Runtime = New(s.bundle, "ns", options)
	t.Cleanup(func() { s.mustLeave(t) })
	return s
}

// mustLeave fails the test if the bundle holds anything but these.
func (s *scripted) mustLeave(t testing.TB, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(string(s.bundle))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			t.Errorf("left in the bundle: %s", e.Name())
		}
	}
}

// args are those of the last call.
func (s *scripted) args(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile(s.path + ".args")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// read reads a file that the script has made beside itself.
func (s *scripted) read(t testing.TB, suffix string) string {
	t.Helper()
	b, err := os.ReadFile(s.path + suffix)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// failure is the Error that err must be.
func failure(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("not the error of a call to the runtime: %v", err)
	}
	return e
}

// null are streams for a process that needs none.
func null(t testing.TB) Streams {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return Streams{Stdin: f, Stdout: f, Stderr: f}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func running(pid int) bool { return syscall.Kill(pid, 0) == nil }

func readNumber(t testing.TB, path string) int {
	t.Helper()
	var n int
	eventually(t, path, func() bool {
		b, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return n
}

// built is the path of a program that `make setup` has built, else of the
// host's own; the test is skipped if there is none.
func built(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "build", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err = exec.LookPath(filepath.Base(name))
	if err != nil {
		t.Skipf("there is no %s: make setup builds it", name)
	}
	return path
}
