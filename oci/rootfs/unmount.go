package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// patience is how long a busy mount is given to get free, in all: whoever looks
// into every file system of the host is gone in a moment. containerd gives the
// whole of a cleanup five seconds.
const patience = time.Second

// Unmount unmounts everything at and below path. What stays busy is
// detached, so that the path can be removed; its last user frees it.
func Unmount(path string) error {
	// Helpers again.
	defer child.Launching()()
	path, err := canonical(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unmount rootfs: %w", err)
	}
	mounts, err := listBelow(path)
	if err != nil {
		return fmt.Errorf("unmount rootfs: %w", err)
	}
	// What something is mounted upon is no link, and a look at it could take for
	// ever: a file system in user space may not answer.
	if !slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool { return m.Mountpoint == path }) {
		if err := refuseLink(path); err != nil {
			return fmt.Errorf("unmount rootfs: %w", err)
		}
	}
	until := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if mounts, err = unmountAll(path, mounts, unix.UMOUNT_NOFOLLOW); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(until) {
			break
		}
		time.Sleep(pause) // nothing tells when a mount can go
	}
	if mounts, err = listBelow(path); err == nil {
		_, err = unmountAll(path, mounts, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil {
		return fmt.Errorf("unmount rootfs %s: %w", path, err)
	}
	return nil
}

// listBelow lists what is mounted at path and below. The kernel writes a line for every
// mount of the host, so it is not asked more often than need be.
func listBelow(path string) ([]*mountinfo.Info, error) {
	return mountinfo.GetMounts(mountinfo.PrefixFilter(path))
}

// unmountAll unmounts mounts, what was mounted last first, so that a mount that
// another one hides comes when it can be reached again. It goes on after a failure,
// does not tell of mounts that cannot be unmounted by their path (EINVAL), and
// returns what is left.
func unmountAll(path string, mounts []*mountinfo.Info, flags int) (left []*mountinfo.Info, failures error) {
	var err error
	// The order of making, by which a clone may come before what it was put
	// upon: what a first pass could not reach, a second can.
	for before := len(mounts) + 1; err == nil && 0 < len(mounts) && len(mounts) < before; {
		failures = nil
		for _, m := range slices.Backward(mounts) {
			err := unmount(m.Mountpoint, m.FSType, flags)
			if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
				failures = errors.Join(failures, fmt.Errorf("%s: %w", m.Mountpoint, err))
			}
		}
		before = len(mounts)
		mounts, err = listBelow(path)
	}
	if err == nil && len(mounts) == 0 {
		return nil, nil
	}
	return mounts, errors.Join(failures, err)
}

// unmount takes the uppermost mount from point. The daemon behind a file system
// in user space wants to be told, which is for a helper to do; if that fails,
// the mount goes all the same.
func unmount(point, fsType string, flags int) error {
	if fsType == "fuse" || fsType == "fuseblk" || strings.HasPrefix(fsType, "fuse.") {
		if unmountFUSE(point) == nil {
			return nil
		}
		flags |= unix.MNT_DETACH
	}
	return unix.Unmount(point, flags)
}

// canonical is path as mountinfo has it: absolute, without symbolic links on
// the way. The last part, which is none, is not looked at: of a file system
// whose daemon has died nothing can be seen.
func canonical(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// mountsAt is how many mounts are stacked at point.
func mountsAt(point string) int { return len(infosAt(point)) }

// fsTypeAt is the file system of the uppermost of them, or "".
func fsTypeAt(point string) string {
	infos := infosAt(point)
	if len(infos) == 0 {
		return ""
	}
	return infos[len(infos)-1].FSType
}

// infosAt is empty when there is nothing to be known.
func infosAt(point string) []*mountinfo.Info {
	path, err := canonical(point)
	if err != nil {
		return nil
	}
	infos, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		return nil
	}
	return infos
}
