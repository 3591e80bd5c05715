package host

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Kernel examines what the shim asks of it, by asking it.
func Kernel() []Finding {
	f := &findings{area: "kernel"}
	var name unix.Utsname
	unix.Uname(&name)
	release := unix.ByteSliceToString(name.Release[:])
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 4) {
		f.add("release", Bad, release, "Linux 5.4 or later is needed")
	} else {
		f.add("release", OK, release, "")
	}
	f.can("pidfd", pidfds(), Bad, "every process is waited for by its pidfd (Linux 5.4, and no seccomp filter around containerd that forbids it)")
	f.can("splice", splices(), Bad, "output of execs and stderr are passed on by splice(2)")
	f.can("sealed memory", seals(), Warn, "without memfd_create(2) shims cannot be upgraded")
	f.can("idmapped mounts", mountSetattr(), Note, "")
	for _, filesystem := range []string{"overlay", "fuse"} {
		if hasFilesystem(filesystem) {
			f.add(filesystem, OK, "there", "")
		} else {
			f.add(filesystem, Note, "is not loaded; the kernel may load it when it is needed", "")
		}
	}
	if actions := setting("/proc/sys/kernel/seccomp/actions_avail"); actions != "" {
		f.add("seccomp", OK, actions, "")
	} else {
		f.add("seccomp", Warn, "not there", "containers run without system call filters")
	}
	switch {
	case setting("/sys/fs/selinux/enforce") == "1":
		f.add("security module", Note, "SELinux enforces: output of containers passes through the shim", "")
	case setting("/sys/module/apparmor/parameters/enabled") == "Y":
		f.add("security module", OK, "AppArmor", "")
	default:
		f.add("security module", OK, "neither SELinux nor AppArmor", "")
	}
	if n := setting("/proc/sys/user/max_user_namespaces"); n == "0" || n == "" {
		f.add("user namespaces", Note, "none can be made: pods with host users only", "")
	} else {
		f.add("user namespaces", OK, "up to "+n, "")
	}
	return f.all
}

// pidfds tells whether a process can be opened, signalled and waited for.
func pidfds() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	// That this is no child of ours is all that may be wrong with it.
	if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		return fmt.Errorf("waitid of a pidfd: %w", err)
	}
	return nil
}

func splices() error {
	from, into, err := os.Pipe()
	if err != nil {
		return err
	}
	defer from.Close()
	defer into.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	defer in.Close()
	if _, err := into.WriteString("x"); err != nil {
		return err
	}
	_, err = unix.Splice(int(from.Fd()), nil, int(in.Fd()), nil, 1, unix.SPLICE_F_NONBLOCK)
	return err
}

func seals() error {
	fd, err := unix.MemfdCreate("cleat-doctor", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	return err
}

// mountSetattr tells whether there is the system call that maps ids; what each
// filesystem can do is another matter.
func mountSetattr() error {
	err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		return errors.New("not there: Linux 5.12 or later has them")
	}
	return nil
}

func hasFilesystem(name string) bool {
	for line := range strings.Lines(setting("/proc/filesystems") + "\n") {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}
