// Package procdump tells what the kernel knows of a process that does not tell
// anything itself: what its threads wait for, which files it has open, what its
// children do. It reads /proc only, so it can neither block nor disturb the
// process.
package procdump

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Dump is what /proc has of a process. What may not be read says so in its place.
type Dump struct {
	PID int
	// Files of /proc/PID by name.
	Files       map[string]string
	Threads     []Thread
	Descriptors []Descriptor
	Children    []Child
}

// Thread is one of the process's.
type Thread struct {
	ID    int
	State string
	// Wchan is the function of the kernel in which it waits, Syscall its number,
	// arguments, and where it was called from, Stack that of the kernel.
	Wchan, Syscall, Stack string
}

// Descriptor is an open file.
type Descriptor struct {
	Number int
	// Target is what it is open on, Info what fdinfo tells.
	Target, Info string
}

// Child is a process that the process has started, or that was left to it: an
// OCI runtime, a logger, the init process of a container.
type Child struct {
	PID   int
	Name  string
	State string
	Wchan string
	// Args are only there for processes outside containers.
	Args []string `json:",omitempty"`
	Age  time.Duration
}

// files are those that tell of the process, and are small.
var files = []string{"status", "limits", "io", "cgroup", "sched", "oom_score_adj"}

// maxFile bounds what is taken of each.
const maxFile = 64 << 10

// Read reads it all. It is an error if there is no such process.
func Read(pid int) (Dump, error) {
	d := Dump{PID: pid, Files: map[string]string{}}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if _, err := os.Stat(dir); err != nil {
		return d, fmt.Errorf("there is no process %d", pid)
	}
	for _, name := range files {
		d.Files[name] = read(dir, name)
	}
	for _, id := range numbers(dir, "task") {
		thread := filepath.Join(dir, "task", strconv.Itoa(id))
		d.Threads = append(d.Threads, Thread{
			ID: id, State: state(thread), Wchan: read(thread, "wchan"),
			Syscall: read(thread, "syscall"), Stack: read(thread, "stack"),
		})
	}
	for _, fd := range numbers(dir, "fd") {
		target, err := os.Readlink(filepath.Join(dir, "fd", strconv.Itoa(fd)))
		if err != nil {
			target = reason(err)
		}
		d.Descriptors = append(d.Descriptors, Descriptor{fd, target, read(dir, "fdinfo/"+strconv.Itoa(fd))})
	}
	d.Children = children(pid)
	return d, nil
}

func children(pid int) []Child {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	mounts := func(pid int) string {
		link, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns", "mnt"))
		return link
	}
	var found []Child
	for _, p := range all {
		stat, err := p.Stat()
		if err != nil || stat.PPID != pid {
			continue
		}
		dir := filepath.Join("/proc", strconv.Itoa(p.PID))
		c := Child{PID: p.PID, Name: stat.Comm, State: state(dir), Wchan: read(dir, "wchan")}
		if at, err := stat.StartTime(); err == nil {
			c.Age = time.Since(time.Unix(0, int64(at*float64(time.Second))))
		}
		if mounts(p.PID) == mounts(pid) { // what a container runs is its own affair
			c.Args, _ = p.CmdLine()
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b Child) int { return cmp.Compare(a.PID, b.PID) })
	return found
}

// read is a file's text, or why there is none.
func read(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return reason(err)
	}
	return strings.TrimSpace(string(text[:min(len(text), maxFile)]))
}

func reason(err error) string {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return "(" + err.Error() + ")"
}

// numbers are the entries of a folder of /proc that are numbers.
func numbers(dir, name string) []int {
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	var found []int
	for _, entry := range entries {
		if n, err := strconv.Atoi(entry.Name()); err == nil {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found
}

// state is the line of status that tells it.
func state(dir string) string {
	for line := range strings.Lines(read(dir, "status")) {
		if after, ok := strings.CutPrefix(line, "State:"); ok {
			return strings.TrimSpace(after)
		}
	}
	return ""
}
