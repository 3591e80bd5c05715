package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// unifiedMount is where the cgroup v2 hierarchy is mounted when it is the only
// one.
const unifiedMount = "/sys/fs/cgroup"

// joinCgroup puts this process into an existing cgroup, the option shim_cgroup:
// on v2 into the one of that path, on v1 into each of that path that there is. The
// daemon is started in it. A cgroup that does not exist at all is
// errdefs.ErrNotFound.
//
// A few lines instead of the cgroups library, which is initialised only after
// `start` has run.
func joinCgroup(group string) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return fmt.Errorf("join cgroup %s: %w", group, err)
	}
	joined := false
	for _, mount := range hierarchies {
		procs := path.Join(mount, path.Join("/", group), "cgroup.procs")
		err := writeExisting(procs, strconv.Itoa(os.Getpid()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
		joined = true
	}
	if !joined {
		return fmt.Errorf("join cgroup %s: there is no such cgroup: %w", group, errdefs.ErrNotFound)
	}
	return nil
}

// cgroupHierarchies returns where the hierarchies that hold controllers are
// mounted.
func cgroupHierarchies() ([]string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(unifiedMount, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return []string{unifiedMount}, nil
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return v1Hierarchies(string(text)), nil
}

// v1Hierarchies finds the v1 mounts in proc_pid_mountinfo(5):
//
//	36 35 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
func v1Hierarchies(mountinfo string) []string {
	var mounts []string
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		mount := strings.Fields(before)
		if len(mount) >= 5 && strings.HasPrefix(after, "cgroup ") {
			mounts = append(mounts, mount[4])
		}
	}
	return mounts
}

func writeExisting(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
