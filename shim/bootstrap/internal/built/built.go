// Package built makes the binaries that tests run, and runs them the way
// containerd does.
package built

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Shim is the path of the shim's binary, Standin that of one with a daemon
// that only answers Connect.
var (
	Shim    = binary("containerd-shim-cleat-v2", "github.com/cleatrun/cleat/cmd/containerd-shim-cleat-v2")
	Standin = binary("containerd-shim-cleat-v2", "github.com/cleatrun/cleat/shim/bootstrap/testdata/standin")
)

func binary(name, pkg string) func(t testing.TB) string {
	build := sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp(temp, "")
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, name)
		out, err := command(path, pkg).CombinedOutput()
		if err != nil {
			return "", errors.New(string(out))
		}
		return path, nil
	})
	return func(t testing.TB) string {
		t.Helper()
		path, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
}

func command(path, pkg string) *exec.Cmd {
	cmd := exec.Command("go", "build", "-tags", "no_grpc", "-o", path, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	return cmd
}

var temp string

// Main runs the tests of a package with a folder for what is built.
func Main(m *testing.M) {
	var err error
	if temp, err = os.MkdirTemp("", "built"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(temp)
	os.Exit(code)
}

// Run runs a binary as containerd runs `start`: in a process group of its own,
// waiting until nobody holds its output, which is both streams in one when
// stderr is nil. status is the exit status.
func Run(t testing.TB, cmd *exec.Cmd, limit time.Duration) (status int) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode()
	case <-ctx.Done():
		cmd.Process.Kill()
		t.Fatalf("%v: no end, or its output is still held, after %s", cmd.Args, limit)
		return -1
	}
}

// Pause is a static program that does nothing until it is killed.
var Pause = binary("pause", "github.com/cleatrun/cleat/shim/bootstrap/cleanup/testdata/pause")

// Runc returns the path of the OCI runtime that tests use, which `make setup`
// has built.
func Runc(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	path := filepath.Join(dir, "build", "runc")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: make setup builds it", err)
	}
	return path
}
