package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"
)

// runtime is the OCI runtime as the shim finds it: CHAOS_RUNTIME, unless there is
// an order for this call in the folder orders of its place. An order is a file ID.VERB, is
// good for one call, and says
//
//	BEFORE AFTER KILL
//
// milliseconds to wait before and after the real runtime's work, and after how
// many milliseconds of it to kill it: -1 for never, 0 before it runs, and by -2
// after it has done all.
func runtime(args []string) {
	real := os.Getenv("CHAOS_RUNTIME")
	// The shell of a script has a word to say if its folder is gone, as that of the
	// shim's first container may be.
	if isScript(real) {
		fail(os.Chdir("/"))
	}
	order := filepath.Join(os.Getenv("CLEAT_PLACE"), "orders", args[len(args)-1]+"."+verb(args))
	taken := order + ".taken"
	if os.Rename(order, taken) != nil {
		// What is asked for most often has its id elsewhere, or no order.
		fail(syscall.Exec(real, args, os.Environ()))
	}
	text, err := os.ReadFile(taken)
	fail(err)
	var before, after, kill int
	_, err = fmt.Sscan(string(text), &before, &after, &kill)
	fail(err)

	time.Sleep(time.Duration(before) * time.Millisecond)
	if kill == 0 {
		die()
	}
	goruntime.LockOSThread() // the death signal is the thread's
	process, err := os.StartProcess(real, args, &os.ProcAttr{
		Files: inherited(),
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	fail(err)
	if kill > 0 {
		// Not waited for yet, so the pid is its own.
		time.Sleep(time.Duration(kill) * time.Millisecond)
		process.Signal(syscall.SIGKILL)
	}
	state, err := process.Wait()
	fail(err)
	if kill == -2 || state.Sys().(syscall.WaitStatus).Signaled() {
		die()
	}
	time.Sleep(time.Duration(after) * time.Millisecond)
	os.Exit(state.ExitCode())
}

func isScript(path string) bool {
	file, err := os.Open(path)
	fail(err)
	defer file.Close()
	var begin [2]byte
	_, err = io.ReadFull(file, begin[:])
	fail(err)
	return string(begin[:]) == "#!"
}

// verb is what the runtime is asked to do: the first word that is one.
func verb(args []string) string {
	for _, word := range args[1:] {
		switch word {
		case "create", "start", "exec", "kill", "delete", "state", "pause", "resume", "update", "ps":
			return word
		}
	}
	return strings.Join(args[1:], "-")
}

// inherited are the descriptors that were handed over, at their numbers: standard
// IO, and the sockets that a runtime is passed beyond.
func inherited() []*os.File {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for fd := 3; fd < 10; fd++ {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC != 0 {
			break
		}
		files = append(files, os.NewFile(uintptr(fd), "inherited"))
	}
	return files
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "the runtime's wrapper:", err)
		os.Exit(112)
	}
}
