package main

// What the kernel knows about a process.

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the CPU time that a process has used, all of its threads, its children
// not. It can be asked about a zombie, too. (clock_getcpuclockid(3))
func cpuOf(pid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// footprint is the memory of a process, in KiB.
type footprint struct {
	rss, pss, private float64
	dirty             float64 // what of private was written: all but unchanged pages of files
	threads           float64
}

func footprintOf(pid int) (f footprint, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "Rss:":
			f.rss = n
		case "Pss:":
			f.pss = n
		case "Private_Clean:":
			f.private += n
		case "Private_Dirty:":
			f.private += n
			f.dirty = n
		}
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	f.threads = float64(len(threads))
	return f, err
}

// switches is how often the threads of a process have left the CPU: each time
// once that they were woken, or were interrupted.
func switches(pid int) (n int, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d has no threads (%v)", pid, err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(status)) {
			if key, value, _ := strings.Cut(line, ":"); strings.HasSuffix(key, "voluntary_ctxt_switches") {
				times, err := strconv.Atoi(strings.TrimSpace(value))
				if err != nil {
					return 0, err
				}
				n += times
			}
		}
	}
	return n, nil
}

// faultsOfChildren is the page faults of the children of a process that have
// ended (proc_pid_stat(5), cminflt). No program runs without any, so it tells
// whether there was one.
func faultsOfChildren(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	if len(fields) < 9 {
		return 0, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	return strconv.Atoi(fields[8])
}
