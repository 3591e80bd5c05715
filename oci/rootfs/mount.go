package rootfs

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cleatrun/cleat/oci"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// mountOne mounts what m describes at point, and adds to done what takes it
// away again, be it that a later step of it fails.
func mountOne(m oci.Mount, point string, done *undo) error {
	if h, ok := helperFor(m.Type); ok {
		return h.mount(m, point, done)
	}
	o, err := parseOptions(m.Options)
	if err != nil {
		return err
	}
	var users *os.File
	if o.idmapped() {
		if users, err = userNamespace(o.uidmap, o.gidmap); err != nil {
			return fmt.Errorf("make a user namespace for %q: %w", m.Source, err)
		}
		defer users.Close()
	}
	c := call{source: m.Source, point: point, kind: m.Type, flags: o.flags, data: o.data}
	remount := o.flags&unix.MS_REMOUNT != 0
	// A remount with data is one of the file system, for all its mounts; the one
	// of this mount alone comes below.
	if !remount || len(o.data) > 0 {
		if o.loop {
			device, err := attachLoop(m.Source, loopOptions{readOnly: o.flags&unix.MS_RDONLY != 0, directIO: o.directIO})
			if err != nil {
				return err
			}
			defer device.Close() // the mount keeps it from here on
			c.source = device.Name()
		}
		if err := c.mount(users); err != nil {
			return err
		}
		if !remount {
			done.add(func() error { return detach(point) })
		}
	}
	if o.readOnlyBind() {
		locked, err := lockedFlags(point)
		if err != nil {
			return err
		}
		c := call{point: point, flags: c.flags | locked | unix.MS_REMOUNT}
		if err := c.do(); err != nil {
			return err
		}
	}
	return nil
}

// call is one of mount(2).
type call struct {
	source, point, kind string
	flags               uintptr
	data                []string
}

// mount makes the mount, or changes it in a remount; as users see it, unless
// they are nil.
func (c call) mount(users *os.File) error {
	switch {
	case c.flags&unix.MS_REMOUNT != 0: // it is idmapped, or cannot be
		return c.do()
	case c.kind == overlayType && users != nil:
		return c.mountIdmappedOverlay(users)
	case c.kind == overlayType:
		return c.mountOverlay()
	case users == nil:
		return c.do()
	case c.flags&unix.MS_BIND != 0:
		// Not by a bind mount that it is put upon, as containerd does: where mounts
		// are shared the bind mount is a peer of the one its source is on, and the
		// source is covered by the idmapped mount, too, as are all others of it.
		tree, err := cloneTree(c.source, c.flags&unix.MS_REC != 0)
		if err != nil {
			return err
		}
		return tree.idmapped(users, 0, c.point)
	default:
		if err := c.do(); err != nil {
			return err
		}
		tree, err := takeTree(c.point)
		if err != nil {
			return err
		}
		return tree.idmapped(users, 0, c.point)
	}
}

// text is the data as the kernel gets it.
func (c call) text() string { return strings.Join(c.data, ",") }

// fits tells whether the data is within what mount(2) copies, which is a page
// together with the byte behind the text.
func (c call) fits() bool { return len(c.text()) < os.Getpagesize() }

func (c call) do() error {
	if !c.fits() {
		return fmt.Errorf("mount %q on %q: the options have %d bytes, more than a page", c.source, c.point, len(c.text()))
	}
	if err := unix.Mount(c.source, c.point, c.kind, c.flags, c.text()); err != nil {
		return fmt.Errorf("mount %q on %q (type %q, flags %#x, data %q): %w", c.source, c.point, c.kind, c.flags, c.text(), err)
	}
	return nil
}

// lockedFlags are those that a remount of point must repeat, because who is in a
// user namespace may not take them from a mount of the namespace above:
// CL_UNPRIVILEGED in the kernel's fs/namespace.c. How access times are kept is
// locked, too, but stays as it is when a remount does not name it.
func lockedFlags(point string) (flags uintptr, err error) {
	if !userns.RunningInUserNS() {
		return 0, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: point, Err: err}
	}
	for _, f := range []struct{ is, repeat uintptr }{
		{unix.ST_RDONLY, unix.MS_RDONLY},
		{unix.ST_NODEV, unix.MS_NODEV},
		{unix.ST_NOEXEC, unix.MS_NOEXEC},
		{unix.ST_NOSUID, unix.MS_NOSUID},
	} {
		if uintptr(st.Flags)&f.is != 0 {
			flags |= f.repeat
		}
	}
	return flags, nil
}

// detach takes the uppermost mount from point, whoever uses it. There being none
// is no error.
func detach(point string) error {
	err := unmount(point, fsTypeAt(point), unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("take the mount from %s: %w", point, err)
}
