package tools

// What the virtual machines of package vm are made from: a kernel and a tree
// of Debian's packages. Only `make test-v2` asks for it.

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Guest says where the parts of a virtual machine are. All paths are absolute.
type Guest struct {
	Emulator []string // the command that runs qemu for x86-64
	Kernel   string   // a kernel image
	Root     string   // a root filesystem: packages unpacked, not configured
}

// debian is the release that the machines run. Its kernel is cgroup v2's
// touchstone: of the long-term series 6.12.
const debian = "trixie"

// kernelPackage stands for the newest kernel for virtual machines: no drivers
// for hardware, and virtio built in.
const kernelPackage = "linux-image-cloud-amd64"

// guestPackages are unpacked into the root, with all that they depend on.
var guestPackages = []string{
	"busybox-static", // the shell and its usual commands
	"crun",
	"criu",
	"dbus",      // systemd's cgroups are asked for through it
	"e2fsprogs", // the tests of loop devices make file systems
	"iproute2",
	"iptables", // CNI's bridge plugin and criu
	"kmod",     // the kernel loads modules through modprobe
	"libcriu2", // crun's way to criu
	"systemd",
	"tar",        // criu keeps the content of a tmpfs with it
	"util-linux", // nsenter and unshare
}

// The emulator is Debian's too. Those before qemu 8.1 can run code that
// another processor has just changed ("accel/tcg: Always lock pages before
// translation" mended it), and a kernel that patches itself while it runs, as
// Linux does, then dies of a breakpoint that is not there any more: in one of
// ten boots here. So the machine's own is not used, whatever it is.
const emulatorPackage = "qemu-system-x86"

var guestNeeds = []need{
	{"apt-get and apt-cache (the machines of the cgroup v2 tests run Debian)", "apt", func() bool { return command("apt-get")() && command("apt-cache")() }},
	{"dpkg-deb (it unpacks Debian's packages)", "dpkg", command("dpkg-deb")},
	{"the keys of Debian's archive (" + keyring + ")", "debian-archive-keyring", func() bool { _, err := os.Stat(keyring); return err == nil }},
}

// EnsureGuest fetches what a virtual machine is made from unless it is there
// and says where it is. Like Ensure it tells its steps to progress and names
// exactly what is missing.
func EnsureGuest(ctx context.Context, progress io.Writer) (Guest, error) {
	if runtime.GOARCH != "amd64" {
		return Guest{}, fmt.Errorf("virtual machines are made of x86-64 programs, the emulator too; this machine is %s", runtime.GOARCH)
	}
	root, err := repository()
	if err != nil {
		return Guest{}, err
	}
	build := filepath.Join(root, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return Guest{}, fmt.Errorf("make the build folder: %w", err)
	}
	unlock, err := lock(filepath.Join(build, ".lock"))
	if err != nil {
		return Guest{}, err
	}
	defer unlock()

	b := builder{root: root, progress: progress, began: time.Now()}
	if err := b.install(ctx, guestNeeds); err != nil {
		return Guest{}, err
	}
	dir := filepath.Join(build, "guest")
	emulator := filepath.Join(dir, "qemu")
	g := Guest{
		Emulator: append(foreign(emulator, "usr/bin/qemu-system-x86_64"),
			"-L", filepath.Join(emulator, "usr/share/qemu"), "-L", filepath.Join(emulator, "usr/share/seabios")),
		Kernel: filepath.Join(dir, "vmlinuz"),
		Root:   filepath.Join(dir, "root"),
	}
	packages := append([]string{debian, kernelPackage, emulatorPackage}, guestPackages...)
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(packages, " "))))
	if upToDate(dir, key) {
		return g, nil
	}
	// Made beside the old one, so that what is there is always whole.
	fresh := dir + ".new"
	for _, old := range []string{fresh, dir} {
		if err := os.RemoveAll(old); err != nil {
			return Guest{}, err
		}
	}
	defer os.RemoveAll(fresh)
	if err := b.fetchGuest(ctx, fresh); err != nil {
		return Guest{}, err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return Guest{}, err
	}
	return g, os.WriteFile(dir+".key", []byte(key), 0o644)
}

// fetchGuest makes the folder that Guest's paths point into.
func (b *builder) fetchGuest(ctx context.Context, dir string) error {
	apt, root := filepath.Join(dir, "apt"), filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	err := b.step("fetch a kernel, packages and an emulator of Debian "+debian, func() error {
		r, err := openRelease(ctx, apt, debian)
		if err != nil {
			return err
		}
		return errors.Join(
			r.unpack(ctx, root, guestPackages...),
			r.unpackTarget(ctx, root, kernelPackage, "linux-image-"),
			r.unpack(ctx, filepath.Join(dir, "qemu"), emulatorPackage),
		)
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(apt); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("%s has not one kernel but %d (%v)", kernelPackage, len(kernels), err)
	}
	version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	if err := os.Rename(kernels[0], filepath.Join(dir, "vmlinuz")); err != nil {
		return err
	}
	return b.step("list the modules of Linux "+version, func() error { return depmod(ctx, root, version) })
}

// depmod writes the index by which modprobe finds modules, which the kernel
// package leaves to its installation. The tree's own kmod does it: this
// machine's may be missing or know less.
func depmod(ctx context.Context, root, version string) error {
	kmod := foreign(root, "usr/bin/kmod", "--argv0", "depmod")
	return run(ctx, root, nil, kmod[0], append(kmod[1:], "-b", root, version)...)
}

// foreign is the command that runs a program of a tree of packages on this
// machine, with the tree's own loader and libraries. The options are the
// loader's.
func foreign(root, program string, options ...string) []string {
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	loader := []string{
		filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"),
		"--library-path", lib + ":" + filepath.Join(lib, "pulseaudio"),
	}
	return append(append(loader, options...), filepath.Join(root, program))
}
