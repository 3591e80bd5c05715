package cell

// What the cell's init does: it makes the surroundings, runs the command, reaps
// what is orphaned, and tells how the command ended. It is process 1 of the
// cell, so when it ends the kernel kills everything else in it.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EnterIfAsked does the work of a cell's init and ends the program if it was
// started as one; else it returns at once. A program that makes cells calls it
// before anything else.
func EnterIfAsked() {
	if os.Getenv(envInit) == "" {
		return
	}
	// Namespaces belong to threads. Everything here, and with it every child,
	// is of the main thread.
	runtime.LockOSThread()
	os.Unsetenv(envInit)
	if err := enter(os.NewFile(ordersFD, "orders"), os.NewFile(reportFD, "report")); err != nil {
		fmt.Fprintln(os.Stderr, "cell:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func enter(from, to *os.File) error {
	unix.CloseOnExec(ordersFD)
	unix.CloseOnExec(reportFD)
	var o orders
	if err := json.NewDecoder(from).Decode(&o); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	if err := joinCgroups(o.Place.Namespace); err != nil {
		return err
	}
	if err := furnish(o.Place.Path("cell"), o.Command); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	pull, err := servePulls(find(o.Command.Folders, o.Command.Busybox))
	if err != nil {
		return err
	}
	env := append(os.Environ(), "PATH="+path(o.Command), "HOME=/run/cell/home", "TMPDIR=/tmp")
	env = append(append(env, pull...), o.Command.Env...)
	ended, err := runToEnd(o.Command.Args, env, o.Command)
	if err != nil {
		return err
	}
	return json.NewEncoder(to).Encode(ended)
}

// runToEnd runs the command and waits for it and for every orphan that ends
// before it does.
func runToEnd(args, env []string, c Command) (Ended, error) {
	os.Setenv("PATH", path(c))
	program, err := exec.LookPath(args[0])
	if err != nil {
		return Ended{}, err
	}
	// Not exec.Cmd: its Wait and the one below would take each other's.
	process, err := os.StartProcess(program, args, &os.ProcAttr{
		Dir:   "/",
		Env:   dedup(env),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return Ended{}, fmt.Errorf("start %s: %w", program, err)
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return Ended{}, fmt.Errorf("wait for %s: %w", program, err)
		case pid == process.Pid && status.Signaled():
			return Ended{Status: 128 + int(status.Signal()), Left: running()}, nil
		case pid == process.Pid:
			return Ended{Status: status.ExitStatus(), Left: running()}, nil
		}
	}
}

// dedup keeps the last of several values of a variable; programs that are not
// written in Go take the first.
func dedup(env []string) []string { return (&exec.Cmd{Env: env}).Environ() }

// find names a file of one of the folders, as it is inside.
func find(folders []string, file string) string {
	for i := range folders {
		path := filepath.Join(Folder(i), file)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return file
}

// running lists the command lines of all processes but the init's.
func running() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []string
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == 1 {
			continue
		}
		text, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil || len(text) == 0 {
			continue // gone or a zombie
		}
		list = append(list, strings.Join(strings.Split(strings.TrimRight(string(text), "\x00"), "\x00"), " "))
	}
	return list
}
