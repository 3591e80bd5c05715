// Package rootfs mounts root filesystems, as containerd's snapshotters describe
// them, by containerd's own mount package.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/containerd/v2/core/mount"
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
	if err := mount.All(all, rootfs); err != nil {
		undo := mount.UnmountMounts(all, rootfs, unix.MNT_DETACH)
		return errors.Join(fmt.Errorf("mount rootfs on %s: %w", rootfs, err), undo)
	}
	return nil
}

// Unmount unmounts everything at and below path. What stays busy is
// detached, so that the path can be removed; its last user frees it.
func Unmount(path string) error {
	defer child.Launching()()
	if err := mount.UnmountRecursive(path, 0); err == nil {
		return nil
	}
	if err := mount.UnmountRecursive(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount rootfs %s: %w", path, err)
	}
	return nil
}
