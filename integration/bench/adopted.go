package main

// Processes whose parents end before them, and whose end is to be seen: shims'
// daemons, init processes of containers that are made by hand.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// adopting makes orphans that come up during do children of this program.
func adopting(do func() error) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	before := children()
	defer func() {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		// What is left, such as the init processes of shims that were killed.
		now, cancel := context.WithCancel(context.Background())
		cancel()
		for _, pid := range children() {
			if !slices.Contains(before, pid) {
				awaitEnd(now, pid)
			}
		}
	}()
	return do()
}

// children lists the children of this program.
func children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		_, after, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(after)
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// end is what an adopted process has used: itself, and the children that it has
// waited for.
type end struct{ own, children time.Duration }

// awaitEnd waits for the end of an adopted process, and removes it. When ctx ends
// before, the process is killed.
func awaitEnd(ctx context.Context, pid int) (e end, err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return e, fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for killed := false; ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return e, err
		}
		if n > 0 {
			break
		}
		if ctx.Err() != nil && !killed {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			killed = true
		}
	}
	if e.own, err = cpuOf(pid); err != nil {
		return e, err
	}
	var status unix.WaitStatus
	var usage unix.Rusage
	for {
		if _, err = unix.Wait4(pid, &status, 0, &usage); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return e, fmt.Errorf("wait for process %d: %w", pid, os.NewSyscallError("wait4", err))
	}
	e.children = time.Duration(usage.Utime.Nano()+usage.Stime.Nano()) - e.own
	return e, ctx.Err()
}
