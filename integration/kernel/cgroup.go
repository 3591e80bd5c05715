// Package kernel reads what the kernel tells of processes, cgroups and
// filesystems.
package kernel

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// CgroupFile reads a file of the cgroup that a process is in: by its names on
// v1, in the controller's hierarchy, and on v2.
func CgroupFile(pid int, controller, v1, v2 string) (string, error) {
	file, err := CgroupPath(pid, controller, v1, v2)
	if err != nil {
		return "", err
	}
	value, err := os.ReadFile(file)
	return strings.TrimSpace(string(value)), err
}

// CgroupPath is where CgroupFile reads.
func CgroupPath(pid int, controller, v1, v2 string) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) != 3:
		case slices.Contains(strings.Split(parts[1], ","), controller):
			return filepath.Join("/sys/fs/cgroup", controller, parts[2], v1), nil
		case parts[1] == "":
			file := filepath.Join("/sys/fs/cgroup", parts[2], v2)
			if _, err := os.Stat(file); err == nil { // no v2 hierarchy beside those of v1
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("process %d has no cgroup for %s: %s", pid, controller, text)
}

// CgroupPIDs lists the processes of a cgroup and all below it, in whatever
// hierarchies it is.
func CgroupPIDs(name string) []int {
	var pids []int
	hierarchies, _ := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	for _, h := range hierarchies {
		filepath.WalkDir(filepath.Join(h.Mountpoint, name), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil
			}
			text, _ := os.ReadFile(path)
			for field := range strings.FieldsSeq(string(text)) {
				pid := 0
				fmt.Sscan(field, &pid)
				pids = append(pids, pid)
			}
			return nil
		})
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}
