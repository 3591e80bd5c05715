package kernel

import (
	"os"

	"golang.org/x/sys/unix"
)

// MapsOwners says why the filesystem of a folder cannot be mounted with its
// owners mapped (mount_setattr(2)), nil when it can.
func MapsOwners(path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	// Any user namespace but the first one would do; there is none at hand, and
	// with the first one the kernel says EPERM where it would do it otherwise.
	namespace, err := os.Open("/proc/self/ns/user")
	if err != nil {
		return err
	}
	defer namespace.Close()
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace.Fd())})
	if err == unix.EPERM {
		return nil
	}
	return err
}
