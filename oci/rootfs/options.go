package rootfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// options are those of fstab, sorted by who is to act upon them.
type options struct {
	flags uintptr // of mount(2)
	data  []string
	// loop: the source is a file to be mounted by a loop device.
	loop, directIO bool
	// uidmap and gidmap are lists of ranges, "container:host:size,...".
	uidmap, gidmap string
}

// idmapped tells whether files belong to other users than on disk. As in
// containerd, one of the two maps alone has no effect.
func (o *options) idmapped() bool { return o.uidmap != "" && o.gidmap != "" }

// readOnlyBind is a bind mount that needs a second call: the kernel ignores all
// flags but MS_REC in the one that makes it.
func (o *options) readOnlyBind() bool {
	return o.flags&(unix.MS_BIND|unix.MS_RDONLY) == unix.MS_BIND|unix.MS_RDONLY
}

func parseOptions(list []string) (*options, error) {
	o := &options{}
	for _, option := range list {
		set, clear := flagsOf(option)
		switch {
		case strings.HasPrefix(option, "X-containerd."):
			// For containerd's mount manager, without which the mount would not be
			// what was meant.
			return nil, fmt.Errorf("mount option %q is for containerd to act upon, and must not come here", option)
		case set|clear != 0:
			o.flags = o.flags&^clear | set
		case option == "loop":
			o.loop = true
		case strings.HasPrefix(option, "uidmap="):
			o.uidmap = option[len("uidmap="):]
		case strings.HasPrefix(option, "gidmap="):
			o.gidmap = option[len("gidmap="):]
		default:
			o.data = append(o.data, option)
		}
	}
	if o.loop {
		o.takeDirectIO()
	}
	return o, nil
}

// takeDirectIO takes the option that the loop device has, and the file system
// does not know, from the data.
func (o *options) takeDirectIO() {
	for i, option := range o.data {
		if option == "direct-io" {
			o.directIO = true
			o.data = append(o.data[:i], o.data[i+1:]...)
			return
		}
	}
}

// flagsOf is what an option sets or clears in the flags of mount(2); neither,
// when it is none for them. See mount(8), "filesystem-independent mount options".
//
// What containerd does not know is the file system's here, too: "private" and
// its like, which come to OCI runtimes only, and "defaults", for it to refuse.
func flagsOf(option string) (set, clear uintptr) {
	switch option {
	case "async":
		return 0, unix.MS_SYNCHRONOUS
	case "sync":
		return unix.MS_SYNCHRONOUS, 0
	case "atime":
		return 0, unix.MS_NOATIME
	case "noatime":
		return unix.MS_NOATIME, 0
	case "bind":
		return unix.MS_BIND, 0
	case "rbind":
		return unix.MS_BIND | unix.MS_REC, 0
	case "dev":
		return 0, unix.MS_NODEV
	case "nodev":
		return unix.MS_NODEV, 0
	case "diratime":
		return 0, unix.MS_NODIRATIME
	case "nodiratime":
		return unix.MS_NODIRATIME, 0
	case "dirsync":
		return unix.MS_DIRSYNC, 0
	case "exec":
		return 0, unix.MS_NOEXEC
	case "noexec":
		return unix.MS_NOEXEC, 0
	case "mand":
		return unix.MS_MANDLOCK, 0
	case "nomand":
		return 0, unix.MS_MANDLOCK
	case "relatime":
		return unix.MS_RELATIME, 0
	case "norelatime":
		return 0, unix.MS_RELATIME
	case "strictatime":
		return unix.MS_STRICTATIME, 0
	case "nostrictatime":
		return 0, unix.MS_STRICTATIME
	case "suid":
		return 0, unix.MS_NOSUID
	case "nosuid":
		return unix.MS_NOSUID, 0
	case "remount":
		return unix.MS_REMOUNT, 0
	case "ro":
		return unix.MS_RDONLY, 0
	case "rw":
		return 0, unix.MS_RDONLY
	}
	return 0, 0
}
