package cri

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// cgroupPIDs lists the processes of a cgroup and all below, in whatever
// hierarchies it is.
func cgroupPIDs(name string) []int {
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

// cgroupFile reads the first word of a file of the cgroup that a process is in:
// by its names on v1, in the controller's hierarchy, and on v2.
func cgroupFile(t *testing.T, pid int, controller, v1, v2 string) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		file := filepath.Join("/sys/fs/cgroup", parts[2], v2)
		if slices.Contains(strings.Split(parts[1], ","), controller) {
			file = filepath.Join("/sys/fs/cgroup", controller, parts[2], v1)
		}
		// A v2 hierarchy beside those of v1 has no such file.
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			return strings.Fields(string(text))[0]
		}
	}
	t.Fatalf("process %d has no cgroup for %s: %s", pid, controller, groups)
	return ""
}
