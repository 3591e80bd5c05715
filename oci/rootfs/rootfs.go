// Package rootfs mounts root filesystems, as containerd's snapshotters describe
// them, and unmounts them.
//
// What a description means is containerd's to say: its package core/mount is
// the reference, and the tests mount the same by both. It is not imported here,
// because every shim would keep what it brings along (docs/performance.md).
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
)

// Mount mounts all of mounts onto the bundle's rootfs, in order. When
// one fails, those before it are undone.
func Mount(b oci.Bundle, mounts []oci.Mount) error {
	if len(mounts) == 0 {
		return nil
	}
	// Mount helpers and the holders of user namespaces are children that are
	// waited for here.
	defer child.Launching()()
	rootfs := b.Rootfs()
	if err := os.Mkdir(rootfs, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	if err := refuseLink(rootfs); err != nil {
		return fmt.Errorf("mount rootfs: %w", err)
	}
	if err := mountAll(rootfs, mounts); err != nil {
		return fmt.Errorf("mount rootfs on %s: %w", rootfs, err)
	}
	return nil
}

func mountAll(rootfs string, mounts []oci.Mount) (err error) {
	var done undo
	defer func() {
		if err != nil {
			err = errors.Join(err, done.run())
		}
	}()
	for _, m := range mounts {
		point, err := beneath(rootfs, m.Target)
		if err != nil {
			return fmt.Errorf("find %q in the root filesystem: %w", m.Target, err)
		}
		if err := mountOne(m, point, &done); err != nil {
			return err
		}
	}
	return nil
}

// undo is what takes back the steps that were done, in their order.
type undo []func() error

func (u *undo) add(step func() error) { *u = append(*u, step) }

// run takes back the last step first, and goes on after a failure.
func (u undo) run() (failures error) {
	for _, step := range slices.Backward(u) {
		failures = errors.Join(failures, step())
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
