package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	os.Exit(m.Run())
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
			if !strings.HasPrefix(m, b.Rootfs()) {
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
		"not for this package": {Type: "bind", Source: "/", Options: []string{"X-containerd.something"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBundle(t, "layer/etc")
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

// The helper of a FUSE mount is a child that containerd's package waits for,
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
