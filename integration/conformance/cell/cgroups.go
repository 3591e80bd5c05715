package cell

// The cgroups of a cell: a namespace of which the root is a cgroup with the
// place's name, in every hierarchy. So what is made in the cell under a fixed
// name is below that one, and the place finds and removes it.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// joinCgroups moves this process into the cgroup name of every hierarchy,
// which it makes, and takes it as the root of what it sees of cgroups.
func joinCgroups(name string) error {
	hierarchies, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for _, h := range hierarchies {
		if h.FSType == "cgroup2" {
			enableAll(h.Mountpoint)
		}
		dir := filepath.Join(h.Mountpoint, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return fmt.Errorf("make a cgroup for the cell: %w", err)
		}
		// A new cpuset has no CPUs and takes no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if text, err := os.ReadFile(filepath.Join(h.Mountpoint, file)); err == nil && h.FSType == "cgroup" {
				os.WriteFile(filepath.Join(dir, file), text, 0)
			}
		}
		if err := join(dir); err != nil {
			return err
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make a cgroup namespace: %w", err)
	}
	for _, h := range hierarchies {
		if h.FSType != "cgroup2" {
			continue
		}
		// In v2 a cgroup that hands controllers to its children holds no
		// processes itself, the root excepted; ours only looks like one.
		root := filepath.Join(h.Mountpoint, name)
		sub := filepath.Join(root, "cell")
		if err := os.Mkdir(sub, 0o755); err != nil {
			return fmt.Errorf("make a cgroup for the cell: %w", err)
		}
		if err := join(sub); err != nil {
			return err
		}
		enableAll(root)
	}
	return nil
}

func join(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter the cell's cgroup: %w", err)
	}
	return nil
}

// enableAll lets the children of a v2 cgroup have all controllers that it has.
// One that cannot be had is missed by whoever needs it.
func enableAll(dir string) {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for controller := range strings.FieldsSeq(string(text)) {
		os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

// remountCgroups mounts every hierarchy anew at its place, so that the mounts
// show the cgroup namespace and not the host.
func remountCgroups() error {
	hierarchies, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	// Deepest first: one can be mounted on another (hybrid).
	slices.SortFunc(hierarchies, func(a, b *mountinfo.Info) int { return len(b.Mountpoint) - len(a.Mountpoint) })
	for _, h := range hierarchies {
		if err := unix.Unmount(h.Mountpoint, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s in the cell: %w", h.Mountpoint, err)
		}
	}
	slices.Reverse(hierarchies)
	for _, h := range hierarchies {
		data := ""
		if h.FSType == "cgroup" {
			data = controllers(h.VFSOptions)
		}
		if err := mount("cgroup", h.Mountpoint, h.FSType, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
			return err
		}
	}
	return nil
}

// controllers is the part of a v1 mount's options that says which hierarchy it
// is.
func controllers(options string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(options, ","), func(option string) bool {
		return option == "rw" || option == "ro" || option == "xattr" || strings.HasPrefix(option, "release_agent=")
	}), ",")
}
