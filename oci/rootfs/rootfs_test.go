package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// As in the shim: what reaps orphans must leave mount helpers alone.
	child.ReapOrphans()
	before := idmapped()
	code := m.Run()
	// containerd's package leaves one now and then, when another process is started
	// at that moment. Ours makes none there.
	for _, path := range idmapped() {
		if !slices.Contains(before, path) {
			unix.Unmount(path, unix.MNT_DETACH)
			os.Remove(path)
		}
	}
	os.Exit(code)
}

// idmapped are the places where containerd's package mounts for a moment.
func idmapped() []string {
	places, _ := filepath.Glob(filepath.Join(os.TempDir(), "ovl-idmapped*"))
	return places
}

// newBundle is a bundle without a rootfs, and folders beside it to mount.
func newBundle(t *testing.T, folders ...string) (b oci.Bundle, beside string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b = oci.Bundle(filepath.Join(dir, "bundle"))
	for _, folder := range append(folders, "bundle") {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, m := range mountsBelow(t, dir) {
			t.Errorf("left mounted: %s", m)
			unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	return b, dir
}

// mountsBelow are the mount points at and below a path, the last mounted first.
func mountsBelow(t *testing.T, path string) (points []string) {
	t.Helper()
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		points = append([]string{info.Mountpoint}, points...)
	}
	return points
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustHold(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v; want %q", path, got, err, want)
	}
}

func mustUnmount(t *testing.T, path string) {
	t.Helper()
	if err := Unmount(path); err != nil {
		t.Error(err)
	}
	if left := mountsBelow(t, path); len(left) != 0 {
		t.Errorf("still mounted: %s", left)
	}
}

func TestBind(t *testing.T) {
	b, dir := newBundle(t, "layer")
	write(t, filepath.Join(dir, "layer", "file"), "of the layer")
	if err := Mount(b, []oci.Mount{{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"rbind", "ro"}}}); err != nil {
		t.Fatal(err)
	}
	mustHold(t, filepath.Join(b.Rootfs(), "file"), "of the layer")
	if err := os.WriteFile(filepath.Join(b.Rootfs(), "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a mount that is read-only: %v", err)
	}
	mustUnmount(t, b.Rootfs())
	mustUnmount(t, b.Rootfs()) // of what is not mounted is no error
}

func TestOverlayWithAMountBelowIt(t *testing.T) {
	b, dir := newBundle(t, "lower/etc", "upper", "work", "volume")
	write(t, filepath.Join(dir, "lower", "file"), "lower")
	write(t, filepath.Join(dir, "volume", "file"), "volume")
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := Mount(b, []oci.Mount{
		{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + in("lower"), "upperdir=" + in("upper"), "workdir=" + in("work")}},
		{Type: "bind", Source: in("volume"), Target: "etc", Options: []string{"bind"}},
	}); err != nil {
		t.Fatal(err)
	}
	mustHold(t, filepath.Join(b.Rootfs(), "file"), "lower")
	mustHold(t, filepath.Join(b.Rootfs(), "etc", "file"), "volume")
	write(t, filepath.Join(b.Rootfs(), "file"), "changed")
	mustUnmount(t, b.Rootfs())
	mustHold(t, in("lower/file"), "lower")
	mustHold(t, in("upper/file"), "changed")
}

// A target with .. in it, which a snapshotter would not send.
func TestTargetStaysBelowTheRootfs(t *testing.T) {
	b, dir := newBundle(t, "layer/escaped", "volume", "escaped")
	if err := os.Symlink("/escaped", filepath.Join(dir, "layer", "link")); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"../escaped", "link"} {
		if err := Mount(b, []oci.Mount{
			{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}},
			{Type: "tmpfs", Source: "tmpfs", Target: target},
		}); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		for _, m := range mountsBelow(t, dir) {
			// Where mounts are shared, the layer has it, too.
			if !strings.HasPrefix(m, b.Rootfs()) && !strings.HasPrefix(m, filepath.Join(dir, "layer")+"/") {
				t.Errorf("%s is mounted at %s", target, m)
			}
		}
		mustUnmount(t, b.Rootfs())
	}
}

// No mounts: the client has a root filesystem of its own, wherever it is.
func TestNoMountsIsNothingToDo(t *testing.T) {
	b, _ := newBundle(t)
	if err := Mount(b, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(b.Rootfs()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a rootfs was made: %v", err)
	}
	if err := Unmount(b.Rootfs()); err != nil {
		t.Errorf("unmount of what is not there: %v", err)
	}
}

// A create that fails leaves nothing, or the snapshot is busy for ever.
func TestMountThatFailsHalfWayIsUndone(t *testing.T) {
	for name, bad := range map[string]oci.Mount{
		"no such source":       {Type: "bind", Source: "/nonexistent/source", Options: []string{"bind"}},
		"no such type":         {Type: "no-such-fs", Source: "none"},
		"no such target":       {Type: "tmpfs", Source: "tmpfs", Target: "no/such/folder"},
		"below a file":         {Type: "tmpfs", Source: "tmpfs", Target: "file/below"},
		"below a link to it":   {Type: "tmpfs", Source: "tmpfs", Target: "link"},
		"not for this package": {Type: "bind", Source: "/", Options: []string{"X-containerd.something"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBundle(t, "layer/etc")
			write(t, filepath.Join(dir, "layer", "file"), "")
			if err := os.Symlink("link", filepath.Join(dir, "layer", "link")); err != nil {
				t.Fatal(err)
			}
			err := Mount(b, []oci.Mount{
				{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}},
				{Type: "tmpfs", Source: "tmpfs", Target: "etc"},
				bad,
			})
			if err == nil || !strings.Contains(err.Error(), b.Rootfs()) {
				t.Errorf("the error does not tell where: %v", err)
			}
			if left := mountsBelow(t, dir); len(left) != 0 {
				t.Errorf("left mounted: %s", left)
			}
		})
	}
}

// Somebody has a shell in the rootfs, or a backup runs: Delete cannot wait for
// them, and the bundle must be removed.
func TestBusyRootfsIsDetached(t *testing.T) {
	b, dir := newBundle(t, "layer/etc")
	if err := Mount(b, []oci.Mount{
		{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}},
		{Type: "tmpfs", Source: "tmpfs", Target: "etc"},
	}); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(b.Rootfs(), "etc", "file"), "still there")
	busy, err := os.Open(filepath.Join(b.Rootfs(), "etc", "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	began := time.Now()
	mustUnmount(t, b.Rootfs())
	// Once for all that is busy, or containerd kills the delete action.
	if took := time.Since(began); took > 3*patience {
		t.Errorf("took %s", took)
	}
	if err := os.RemoveAll(string(b)); err != nil {
		t.Errorf("the bundle cannot be removed: %v", err)
	}
	var text [11]byte
	if _, err := busy.Read(text[:]); err != nil || string(text[:]) != "still there" {
		t.Errorf("who used it reads %q, %v", text, err)
	}
}

func TestUnmountTakesAllThatIsStackedAndBelow(t *testing.T) {
	b, dir := newBundle(t, "layer/a/b")
	for range 2 { // the first is of a shim that was killed
		if err := Mount(b, []oci.Mount{
			{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}},
			{Type: "tmpfs", Source: "tmpfs", Target: "a/b"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	mustUnmount(t, b.Rootfs())
}

// Whatever a link points to, it is not the bundle's: unmounting it took the
// host's mounts away.
func TestRootfsThatIsALinkIsRefused(t *testing.T) {
	b, dir := newBundle(t, "layer", "elsewhere/below")
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := unix.Mount("tmpfs", filepath.Join(elsewhere, "below"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(elsewhere, "below"), 0)
	if err := os.Symlink(elsewhere, b.Rootfs()); err != nil {
		t.Fatal(err)
	}
	if err := Mount(b, []oci.Mount{{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}}}); err == nil {
		t.Error("mounted through a link")
	}
	if err := Unmount(b.Rootfs()); err == nil {
		t.Error("unmounted through a link")
	}
	if left := mountsBelow(t, dir); len(left) != 1 {
		t.Errorf("mounted are %s", left)
	}
}

func TestRootfsThatIsAFileIsRefused(t *testing.T) {
	b, dir := newBundle(t, "layer")
	write(t, b.Rootfs(), "")
	if err := Mount(b, []oci.Mount{{Type: "bind", Source: filepath.Join(dir, "layer"), Options: []string{"bind"}}}); err == nil {
		t.Error("mounted on a file")
	}
	if err := Unmount(b.Rootfs()); err != nil {
		t.Error(err)
	}
}

// The helper of a FUSE mount is a child that is waited for,
// while children that nobody owns are reaped.
func TestMountHelperKeepsItsExit(t *testing.T) {
	b, dir := newBundle(t, "layer", "bin")
	write(t, filepath.Join(dir, "layer", "file"), "of the layer")
	write(t, filepath.Join(dir, "bin", "mount.fuse3"), "#!/bin/sh\nexec mount --bind \"$1\" \"$2\"\n")
	if err := os.Chmod(filepath.Join(dir, "bin", "mount.fuse3"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	for range 20 {
		if err := Mount(b, []oci.Mount{{Type: "fuse3.test", Source: filepath.Join(dir, "layer")}}); err != nil {
			t.Fatal(err)
		}
		mustHold(t, filepath.Join(b.Rootfs(), "file"), "of the layer")
		mustUnmount(t, b.Rootfs())
	}
}

// A pod with a user namespace: the layer's files belong to the container's
// users. The user namespace for it is held by a child for a moment, while
// children that nobody owns are reaped.
func TestIdmappedMounts(t *testing.T) {
	const uid, gid = 100000, 200000
	ids := []string{"uidmap=0:100000:65536", "gidmap=0:200000:65536"}
	for name, mounts := range map[string]func(in func(string) string) []oci.Mount{
		"bind": func(in func(string) string) []oci.Mount {
			return []oci.Mount{{Type: "bind", Source: in("layers/a"), Options: append([]string{"rbind"}, ids...)}}
		},
		"overlay": func(in func(string) string) []oci.Mount {
			return []oci.Mount{{Type: "overlay", Source: "overlay", Options: append([]string{
				"lowerdir=" + in("layers/a") + ":" + in("layers/b"), "upperdir=" + in("upper"), "workdir=" + in("work")}, ids...)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBundle(t, "layers/a", "layers/b", "upper", "work")
			write(t, filepath.Join(dir, "layers", "a", "file"), "")
			if err := Mount(b, mounts(func(name string) string { return filepath.Join(dir, name) })); err != nil {
				if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
					t.Skipf("this kernel or file system has no idmapped mounts: %v", err)
				}
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(b.Rootfs(), "file"), &st); err != nil || st.Uid != uid || st.Gid != gid {
				t.Errorf("the file belongs to %d:%d, %v", st.Uid, st.Gid, err)
			}
			mustUnmount(t, b.Rootfs())
		})
	}
}

// An image of many layers: their paths do not fit into the page that mount(2)
// takes.
func TestOverlayOfManyLayers(t *testing.T) {
	const layers = 100
	var folders []string
	for i := range layers {
		folders = append(folders, fmt.Sprintf("%s/%03d", strings.Repeat("long-name-", 5), i))
	}
	b, dir := newBundle(t, folders...)
	var lower []string
	for i, folder := range folders {
		lower = append(lower, filepath.Join(dir, folder))
		write(t, filepath.Join(dir, folder, fmt.Sprint(i)), "")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := Mount(b, []oci.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(lower, ":")}}}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(b.Rootfs()); err != nil || len(entries) != layers {
		t.Errorf("%d of %d layers are there, %v", len(entries), layers, err)
	}
	if now, err := os.Getwd(); err != nil || now != here {
		t.Errorf("the shim is in %s now, %v", now, err)
	}
	mustUnmount(t, b.Rootfs())
}

func TestLoopMount(t *testing.T) {
	b, dir := newBundle(t)
	image := filepath.Join(dir, "image")
	write(t, image, "")
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	launched := child.Launching() // or its exit is taken for an orphan's
	out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput()
	launched()
	if err != nil {
		t.Skipf("no file system can be made: %v %s", err, out)
	}
	if err := Mount(b, []oci.Mount{{Type: "ext4", Source: image, Options: []string{"loop", "ro"}}}); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			t.Skipf("no loop devices: %v", err)
		}
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.Rootfs(), "lost+found")); err != nil {
		t.Error(err)
	}
	mustUnmount(t, b.Rootfs())
}
