package rootfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"golang.org/x/sys/unix"
)

// These tests look for what mounts leave behind, and for what is only told by
// other means than mountinfo.

// eventuallyOneWorkingDirectory waits until no thread is in a folder of a side:
// those that were end behind the mount. containerd's stays there if it is the main
// thread, which cannot end.
func eventuallyOneWorkingDirectory(t *testing.T, s side) {
	t.Helper()
	var other string
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		other = ""
		threads, err := filepath.Glob("/proc/self/task/*/cwd")
		if err != nil || len(threads) == 0 {
			t.Fatalf("threads: %s, %v", threads, err)
		}
		for _, link := range threads {
			if dir, err := os.Readlink(link); err == nil && strings.HasPrefix(dir, string(s)+"/") {
				other = dir
			}
		}
		if other == "" {
			return
		}
	}
	t.Errorf("a thread is still in %s", other)
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Many pods with user namespaces are started at once.
func TestIdmappedMountsInParallel(t *testing.T) {
	const at, each = 8, 6
	ours, _ := sides(t, unix.MS_SHARED)
	files := count(t, "/proc/self/fd")
	var all sync.WaitGroup
	for i := range at {
		all.Go(func() {
			b := oci.Bundle(ours.in(fmt.Sprint("bundle-", i)))
			if err := os.MkdirAll(filepath.Join(string(b), "work"), 0o755); err != nil {
				t.Error(err)
			}
			if err := os.MkdirAll(filepath.Join(string(b), "upper"), 0o755); err != nil {
				t.Error(err)
			}
			ids := func(options ...string) []string {
				return append(options, fmt.Sprintf("uidmap=0:%d:1000", 100000+1000*i), fmt.Sprintf("gidmap=0:%d:1000", 500000+1000*i))
			}
			for n := range each {
				m := oci.Mount{Type: "overlay", Source: "overlay", Options: ids("lowerdir="+ours.in("layers/a")+":"+ours.in("layers/b"),
					"upperdir="+filepath.Join(string(b), "upper"), "workdir="+filepath.Join(string(b), "work"))}
				if n%2 == 1 {
					m = oci.Mount{Type: "bind", Source: ours.in("layers/b"), Options: ids("rbind")}
				}
				err := Mount(b, []oci.Mount{m})
				if errors.Is(err, unix.EINVAL) && i == 0 {
					t.Logf("no idmapped mounts here: %v", err)
				} else if err != nil && !errors.Is(err, unix.EINVAL) {
					t.Error(err)
				}
				var st unix.Stat_t
				if err == nil {
					if err := unix.Stat(filepath.Join(b.Rootfs(), "b"), &st); err != nil || st.Uid != uint32(100000+1000*i+2) || st.Gid != uint32(500000+1000*i+4) {
						t.Errorf("the file belongs to %d:%d, %v", st.Uid, st.Gid, err)
					}
				}
				if err := Unmount(b.Rootfs()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if left := mountsBelow(t, string(ours)); len(left) > 0 {
		t.Errorf("left mounted: %s", left)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("there is a child, %d, %v", pid, err)
	}
	if now := count(t, "/proc/self/fd"); now > files+1 { // a listing has one itself
		t.Errorf("%d files are open, before %d", now, files)
	}
}

// containerd makes such a mount, and forgets the users.
func TestReadOnlyBindIsIdmapped(t *testing.T) {
	ours, _ := sides(t, unix.MS_SHARED)
	if err := Mount(ours.bundle(), bind("rbind", "ro", uids, gids)(ours)); err != nil {
		if errors.Is(err, unix.EINVAL) {
			t.Skipf("no idmapped mounts here: %v", err)
		}
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(ours.rootfs(), &st); err != nil || st.Uid != 100000 || st.Gid != 200000 {
		t.Errorf("it belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	if err := os.WriteFile(filepath.Join(ours.rootfs(), "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to it: %v", err)
	}
	mustUnmount(t, ours.rootfs())
}

// makeImage makes a file system with a file in it, in a file.
func makeImage(t *testing.T, path, folder string) {
	t.Helper()
	write(t, path, "")
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	defer child.Launching()()
	if out, err := exec.Command("mkfs.ext4", "-q", "-d", folder, path).CombinedOutput(); err != nil {
		t.Skipf("no file system can be made: %v %s", err, out)
	}
}

// loopsOf are the devices that a file is attached to, by their folders in sysfs.
func loopsOf(t *testing.T, path string) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == path {
			found = append(found, filepath.Dir(name))
		}
	}
	return found
}

func TestLoopDevicesAreAsContainerds(t *testing.T) {
	ours, theirs := sides(t, unix.MS_SHARED)
	// Not on tmpfs, which takes no direct I/O everywhere.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image := func(s side) string { return filepath.Join(dir, filepath.Base(string(s))) }
	for _, s := range []side{ours, theirs} {
		makeImage(t, image(s), s.in("layers/b"))
		if err := os.RemoveAll(s.rootfs()); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s.rootfs(), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, options := range [][]string{{"loop"}, {"loop", "ro"}, {"ro", "loop", "direct-io"}, {"loop", "direct-io", "noatime", "errors=remount-ro"}, {"loop", "ro", uids, gids}, {"loop", "something=else"}} {
		t.Run(strings.Join(options, ","), func(t *testing.T) {
			mounts := func(s side) []oci.Mount {
				return []oci.Mount{{Type: "ext4", Source: image(s), Options: options}}
			}
			err := compare(t, ours, theirs, mounts)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
				t.Skipf("no loop devices here: %v", err)
			}
			if left := loopsOf(t, image(ours)); len(left) > 0 {
				t.Errorf("left attached: %s", left)
			}
			if err != nil {
				return
			}
			var devices [2]string
			for i, mountBy := range []func(s side) error{
				func(s side) error { return Mount(s.bundle(), mounts(s)) },
				func(s side) error { return mountTheirs(s, mounts(s)) },
			} {
				s := []side{ours, theirs}[i]
				if err := mountBy(s); err != nil {
					t.Fatal(err)
				}
				for _, device := range loopsOf(t, image(s)) {
					for _, about := range []string{"loop/autoclear", "loop/dio", "loop/offset", "ro"} {
						text, err := os.ReadFile(filepath.Join(filepath.Dir(device), about))
						if err != nil {
							t.Error(err)
						}
						devices[i] += about + " " + string(text)
					}
				}
				mustUnmount(t, s.rootfs())
			}
			if devices[0] != devices[1] || !strings.Contains(devices[0], "autoclear 1") {
				t.Errorf("ours:\n%stheirs:\n%s", devices[0], devices[1])
			}
		})
	}
}

// Who wants a loop device must be given one by the kernel first, and then be
// the fastest to take it.
func TestLoopDevicesInParallel(t *testing.T) {
	const at = 6
	ours, _ := sides(t, unix.MS_SHARED)
	image := ours.in("image")
	makeImage(t, image, ours.in("layers/b"))
	var all sync.WaitGroup
	for i := range at {
		all.Go(func() {
			b := oci.Bundle(ours.in(fmt.Sprint("bundle-", i)))
			if err := os.Mkdir(string(b), 0o755); err != nil {
				t.Error(err)
			}
			for range 4 {
				err := Mount(b, []oci.Mount{{Type: "ext4", Source: image, Options: []string{"loop", "ro"}}})
				if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
					t.Logf("no loop devices here: %v", err)
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mustHold(t, filepath.Join(b.Rootfs(), "b"), "layers/b/b")
				mustUnmount(t, b.Rootfs())
			}
		})
	}
	all.Wait()
	if left := loopsOf(t, image); len(left) > 0 {
		t.Errorf("left attached: %s", left)
	}
}

// The parts of LOOP_CONFIGURE, for kernels that do not have it.
func TestLoopDeviceByParts(t *testing.T) {
	ours, _ := sides(t, unix.MS_SHARED)
	write(t, ours.in("image"), "")
	if err := os.Truncate(ours.in("image"), 1<<20); err != nil {
		t.Fatal(err)
	}
	device, err := attachLoop(ours.in("image"), loopOptions{})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
		t.Skipf("no loop devices here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	backing, err := os.OpenFile(ours.in("image"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}
	if err := configureLoopByParts(device, backing, info, false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a device that is taken: %v", err)
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		t.Fatal(err)
	}
	device.Close()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	device, err = os.OpenFile(fmt.Sprint(loopDevice, number), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if err := configureLoopByParts(device, backing, info, false); err != nil {
		t.Fatal(err)
	}
	if attached := loopsOf(t, ours.in("image")); len(attached) != 1 {
		t.Errorf("attached: %s", attached)
	}
	device.Close()
	if left := loopsOf(t, ours.in("image")); len(left) > 0 {
		t.Errorf("left attached: %s", left)
	}
}

// A script instead of fusermount, by which a mount is taken away, or is not.
func TestFUSEIsUnmountedByItsHelper(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	for name, script := range map[string]string{
		"fusermount3": "umount -l \"$2\"",
		"fusermount":  "umount -l \"$2\"",
		"failing":     "exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBundle(t, "bundle/rootfs", "bin")
			program, said := filepath.Join(dir, "bin", name), filepath.Join(dir, "said")
			if name == "failing" {
				program = filepath.Join(dir, "bin", "fusermount3")
			}
			write(t, program, "#!/bin/sh\necho \"$@\" >"+said+"\n"+script+"\n")
			if err := os.Chmod(program, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
			device := mountFUSE(t, b.Rootfs())
			defer device.Close()
			mustUnmount(t, b.Rootfs())
			mustHold(t, said, "-u "+b.Rootfs()+"\n")
		})
	}
}

// mountFUSE makes a file system that answers nothing. It is dead once the file
// is closed.
func mountFUSE(t *testing.T, point string) *os.File {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("test", point, "fuse.test", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())); err != nil {
		device.Close()
		t.Skipf("no FUSE here: %v", err)
	}
	return device
}

// Of a file system whose daemon has died nothing can be seen, not even that it
// is a folder; the bundle could not be removed.
func TestDeadFUSEIsUnmounted(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	b, _ := newBundle(t, "bundle/rootfs")
	mountFUSE(t, b.Rootfs()).Close()
	if _, err := os.Stat(b.Rootfs()); !errors.Is(err, unix.ENOTCONN) {
		t.Fatalf("it is not dead: %v", err)
	}
	mustUnmount(t, b.Rootfs())
}

// A helper may fail behind the mount that it has made.
func TestWhatAFailedHelperHasMountedIsUndone(t *testing.T) {
	b, dir := newBundle(t, "layer", "bin")
	write(t, filepath.Join(dir, "bin", "mount.fuse"), "#!/bin/sh\nmount --bind \"$1\" \"$2\" && mount -t tmpfs x \"$2\" && echo broken >&2\nexit 3\n")
	if err := os.Chmod(filepath.Join(dir, "bin", "mount.fuse"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	err := Mount(b, []oci.Mount{{Type: "fuse.test", Source: filepath.Join(dir, "layer"), Options: []string{"a", "b=c"}}})
	if err == nil || !strings.Contains(err.Error(), "-o a -o b=c -t test") || !strings.Contains(err.Error(), "broken") || !strings.Contains(err.Error(), "status 3") {
		t.Error(err)
	}
	if left := mountsBelow(t, dir); len(left) > 0 {
		t.Errorf("left mounted: %s", left)
	}
}
