// Package rootfs mounts root filesystems, as containerd's snapshotters describe
// them, by containerd's own mount package.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mount mounts all of mounts onto the bundle's rootfs, in order. When
// one fails, those before it are undone.
func Mount(b oci.Bundle, mounts []oci.Mount) error {
	if len(mounts) == 0 {
		return nil
	}
	// Mount helpers (mount.fuse and the like) are children that the mount
	// package waits for itself.
	defer child.Launching()()
	all := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		all[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	rootfs := b.Rootfs()
	if err := os.Mkdir(rootfs, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	if err := refuseLink(rootfs); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	if err := mount.All(all, rootfs); err != nil {
		undo := mount.UnmountMounts(all, rootfs, unix.MNT_DETACH)
		return errors.Join(fmt.Errorf("mount rootfs on %s: %w", rootfs, err), undo)
	}
	return nil
}

// patience is how long a busy mount is given to get free, in all: whoever looks
// into every file system of the host is gone in a moment. containerd gives the
// whole of a cleanup five seconds.
const patience = time.Second

// Unmount unmounts everything at and below path. What stays busy is
// detached, so that the path can be removed; its last user frees it.
func Unmount(path string) error {
	// Helpers again.
	defer child.Launching()()
	if err := refuseLink(path); err != nil {
		return fmt.Errorf("unmount rootfs: %w", err)
	}
	until := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unmountAll(path)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(until) {
			break
		}
		time.Sleep(pause) // nothing tells when a mount can go
	}
	if err := mount.UnmountRecursive(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount rootfs %s: %w", path, err)
	}
	return nil
}

// unmountAll unmounts what was mounted last first, so that a mount that another
// one hides comes when it can be reached again. It goes on after a failure.
func unmountAll(path string) (failures error) {
	path, err := mount.CanonicalizePath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if strings.HasPrefix(m.FSType, "fuse") {
			// Its daemon wants to be told, which is for a helper to do.
			err = mount.Unmount(m.Mountpoint, unix.MNT_DETACH)
		} else {
			err = unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			failures = errors.Join(failures, fmt.Errorf("%s: %w", m.Mountpoint, err))
		}
	}
	return failures
}

// refuseLink is an error for a rootfs that is somewhere else, where nothing is
// the bundle's to mount upon or unmount.
func refuseLink(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a symbolic link", path)
	}
	return nil
}
