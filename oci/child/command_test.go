package child

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWaitEndsWithItsContextAndCanBeAskedAgain(t *testing.T) {
	for name, launch := range map[string]func(*exec.Cmd) (*Command, error){"Start": Start, "Spawn": Spawn} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", "read line; exit 5")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			command, err := launch(cmd)
			if err != nil {
				t.Fatal(err)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			if state, err := command.Wait(over); state != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("with a context that has ended: %v, %v", state, err)
			}
			if gone(command.PID()) || zombie(command.PID()) {
				t.Fatal("the end of a wait ended the process")
			}
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					if state, err := command.Wait(t.Context()); err != nil || state.ExitCode() != 5 {
						t.Errorf("%v, %v", state, err)
					}
				})
			}
			in.Close()
			all.Wait()
			if state, err := command.Wait(over); err != nil || state.ExitCode() != 5 {
				t.Errorf("asked again: %v, %v", state, err)
			}
			if command.Success() {
				t.Error("exit status 5 is told to be a success")
			}
			if err := command.Signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("signal to a program that has ended: %v", err)
			}
		})
	}
}

func TestProgramThatCannotBeRunIsNoLaunch(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, launch := range map[string]func(*exec.Cmd) (*Command, error){"Start": Start, "Spawn": Spawn} {
		if _, err := launch(exec.Command("/nonexistent")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := launch(exec.Command(plain)); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	family.mu.Lock()
	defer family.mu.Unlock()
	if n := len(family.launches); n != 0 {
		t.Errorf("%d launches are still under way: orphans would never be reaped", n)
	}
}

// A runtime that is a script, or runs a hook that hangs: when only the first
// process is killed, the rest goes on and may finish a container that everybody
// takes for failed.
func TestEndOfTheContextKillsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "sleep 100 & echo $!; wait")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	command, err := Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	hook := numbers(t, r, 1)[0]
	cancel()
	state, err := command.Wait(t.Context())
	if err != nil || state.Sys().(interface{ Signaled() bool }).Signaled() == false {
		t.Errorf("%v, %v", state, err)
	}
	eventually(t, "the end of what it has started", func() bool { return gone(hook) })
}

// A descendant that keeps the output open would hold up Create for ever.
func TestOutputThatStaysOpenIsNotWaitedForInVain(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "sleep 100 & echo $! >&3")
	cmd.WaitDelay = 1       // the shortest, instead of outputGrace
	cmd.Stdout = io.Discard // not a file: copied from a pipe
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	command, err := Start(cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	daemon := numbers(t, r, 1)[0]
	defer unix.Kill(daemon, unix.SIGKILL)
	if state, err := command.Wait(t.Context()); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}

// What a runtime leaves behind is the container; what a logger leaves behind
// is an orphan, however long the logger lives.
func TestSpawnDoesNotHoldUpOrphans(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	logger, err := Spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	orphan := launchAll(t, "exit 0")[0]
	eventually(t, "the reaping of the orphan", func() bool { return gone(orphan) })
	in.Close()
	if _, err := logger.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestStartHoldsUpOrphansOfItsTime(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "read line")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	orphan := launchAll(t, "exit 0")[0]
	eventually(t, "the end of the orphan", func() bool { return zombie(orphan) })
	family.reapOrphans()
	if gone(orphan) {
		t.Error("reaped while a launch of its time was under way")
	}
	in.Close()
	if _, err := runtime.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !gone(orphan) {
		t.Error("not reaped when Wait had returned")
	}
}

func TestSignalReachesTheProgram(t *testing.T) {
	command, err := Spawn(exec.Command("/bin/sleep", "100"))
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	state, err := command.Wait(t.Context())
	if err != nil || state.String() != "signal: terminated" {
		t.Errorf("%v, %v", state, err)
	}
}
