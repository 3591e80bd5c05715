package integration

// What the kernel tells of processes and cgroups.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/kernel"
)

// noZombies tells which children of a process have ended and were not waited
// for.
func noZombies(parent int) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	var zombies []string
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(after); len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			zombies = append(zombies, string(text))
		}
	}
	if len(zombies) > 0 {
		return fmt.Errorf("zombies:\n%s", lines(zombies))
	}
	return nil
}

// cgroupPIDs lists the processes of the cgroup that a process is in.
func cgroupPIDs(t *testing.T, pid int) []int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		mount := "/sys/fs/cgroup"
		if parts[1] != "" {
			mount = filepath.Join(mount, strings.TrimPrefix(parts[1], "name="))
		}
		procs, err := os.ReadFile(filepath.Join(mount, parts[2], "cgroup.procs"))
		if err != nil {
			continue
		}
		var pids []int
		for field := range strings.FieldsSeq(string(procs)) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
		return pids
	}
	t.Fatalf("process %d is in no cgroup of its own: %s", pid, text)
	return nil
}

// noChildren tells which children a process has besides one.
func noChildren(parent, besides int) error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", parent, parent))
	if err != nil {
		return nil // a kernel without CONFIG_PROC_CHILDREN
	}
	for pid := range strings.FieldsSeq(string(text)) {
		if pid != fmt.Sprint(besides) {
			return fmt.Errorf("process %d has the child %s", parent, pid)
		}
	}
	return nil
}

// memoryLimit reads the memory limit of the cgroup that a process is in.
func memoryLimit(t *testing.T, pid int) string {
	t.Helper()
	return cgroupFile(t, pid, "memory", "memory.limit_in_bytes", "memory.max")
}

// cgroupFile reads a file of the cgroup that a process is in: by its names on
// v1, in the controller's hierarchy, and on v2.
func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	value, err := kernel.CgroupFile(pid, controller, v1, v2)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// cpuTime is the processor time that a process has used (proc_pid_stat(5)).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	var user, system int64
	if len(fields) > 12 {
		fmt.Sscan(fields[11], &user)
		fmt.Sscan(fields[12], &system)
	}
	return time.Duration(user+system) * time.Second / 100
}

// descriptors lists what a process has open.
func descriptors(t *testing.T, pid int) []string {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatalf("descriptors of %d: %v, %v", pid, links, err)
	}
	var list []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			list = append(list, filepath.Base(link)+" "+target)
		}
	}
	return list
}

// aliveNot is the opposite of alive; a zombie counts as gone.
func aliveNot(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	if len(after) > 0 && (after[0] == 'Z' || after[0] == 'X') {
		return nil
	}
	return fmt.Errorf("process %d is there", pid)
}
