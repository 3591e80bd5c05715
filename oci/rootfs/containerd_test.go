package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// These tests mount the same by this package and by containerd's, each beside
// sources of its own, and compare what comes of it.

// envLocked is set in a test that runs itself in a user namespace: a folder whose
// mount has flags that are locked there.
const envLocked = "CLEAT_TEST_LOCKED"

// side is where one of the two mounts: a bundle, and the same sources.
type side string

func (s side) in(name string) string { return filepath.Join(string(s), name) }
func (s side) bundle() oci.Bundle    { return oci.Bundle(s.in("bundle")) }
func (s side) rootfs() string        { return s.bundle().Rootfs() }

// sides makes both, on a file system of the test's own whose mounts propagate
// or do not.
func sides(t *testing.T, propagation uintptr) (ours, theirs side) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir, err := os.MkdirTemp("", "rootfs-") // names of tests have commas
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountsBelow(t, dir) {
			if m != dir {
				t.Errorf("left mounted: %s", m)
			}
			unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	if err := unix.Mount("", dir, "", propagation, ""); err != nil {
		t.Fatal(err)
	}
	ours, theirs = side(filepath.Join(dir, "1")), side(filepath.Join(dir, "2"))
	for _, s := range []side{ours, theirs} {
		for _, folder := range []string{"bundle/rootfs", "layers/a/etc", "layers/b/etc", "layers/c:d,e", "upper", "work", "volume"} {
			if err := os.MkdirAll(s.in(folder), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for i, name := range []string{"layers/a/a", "layers/a/etc/both", "layers/b/b", "layers/b/etc/both", "layers/c:d,e/c", "volume/file"} {
			write(t, s.in(name), name)
			if err := os.Chown(s.in(name), i, 2*i); err != nil {
				t.Fatal(err)
			}
		}
		for name, target := range map[string]string{"up": "../../etc", "away": "/etc", "loop": "loop"} {
			if err := os.Symlink(target, s.in("layers/a/"+name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return ours, theirs
}

func mountTheirs(s side, mounts []oci.Mount) error {
	defer child.Launching()() // or their children's exits are taken for orphans'
	all := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		all[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: slices.Clone(m.Options)}
	}
	err := mount.All(all, s.rootfs())
	if err != nil {
		err = errors.Join(err, mount.UnmountMounts(all, s.rootfs(), unix.MNT_DETACH))
	}
	return err
}

// errno is that of the system call behind an error, or 0.
func errno(err error) (n syscall.Errno) {
	errors.As(err, &n)
	return n
}

var (
	groups  = regexp.MustCompile(`(shared|master):\d+`)
	devices = regexp.MustCompile(`/dev/loop\d+`)
	idmaps  = regexp.MustCompile(`/[^:,]*/ovl-idmapped\d+`)
)

// shown are the lines of mountinfo about a side, without what is of this side
// alone.
func shown(t *testing.T, s side) (lines []string) {
	t.Helper()
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(string(s)))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range infos {
		line := fmt.Sprintf("%s %s %s %s %s %s %s", m.Root, m.Mountpoint, m.Options, groups.ReplaceAllString(m.Optional, "$1"), m.FSType, m.Source, m.VFSOptions)
		line = devices.ReplaceAllString(line, "/dev/loop")
		line = idmaps.ReplaceAllString(line, s.rootfs()) // where ours are for a moment
		root := "/" + filepath.Base(string(s)) + "/"
		line = strings.ReplaceAll(strings.ReplaceAll(line, string(s), "SIDE"), root, "/SIDE/")
		lines = append(lines, line)
	}
	return lines
}

// uppermost are the lines about what can be seen in the root filesystem.
// containerd puts an idmapped mount upon one that is not, and in shared mounts
// upon its source.
func uppermost(t *testing.T, s side) (lines []string) {
	seen := map[string]bool{}
	for _, line := range slices.Backward(shown(t, s)) {
		at := strings.Fields(line)[1]
		if !seen[at] && strings.HasPrefix(at, "SIDE/bundle/rootfs") {
			lines = append(lines, line)
		}
		seen[at] = true
	}
	return lines
}

// contents are the files that are there and whose they are, and what comes of
// writing one.
func contents(t *testing.T, s side) (lines []string) {
	t.Helper()
	made := os.WriteFile(filepath.Join(s.rootfs(), "made"), nil, 0o644)
	lines = append(lines, fmt.Sprintf("write: %v", errno(made)))
	if err := filepath.WalkDir(s.rootfs(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		text := ""
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(data)
		}
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %q", strings.TrimPrefix(path, s.rootfs()), st.Mode, st.Uid, st.Gid, text))
		return nil
	}); err != nil {
		t.Error(err)
	}
	return lines
}

// compare mounts by both. Whether it succeeds is the same, too.
func compare(t *testing.T, ours, theirs side, mounts func(s side) []oci.Mount) (failed error) {
	t.Helper()
	err, want := Mount(ours.bundle(), mounts(ours)), mountTheirs(theirs, mounts(theirs))
	if (err == nil) != (want == nil) || errno(err) != errno(want) {
		t.Errorf("ours: %v\ntheirs: %v", err, want)
	}
	show := shown
	if text := fmt.Sprint(mounts(ours)); strings.Contains(text, "uidmap=") && strings.Contains(text, "gidmap=") {
		show = uppermost
	}
	if got, want := show(t, ours), show(t, theirs); !slices.Equal(got, want) {
		t.Errorf("ours:\n%s\ntheirs:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	} else if err != nil && len(got) > 0 {
		t.Errorf("left by a failure: %s", got)
	}
	if got, want := contents(t, ours), contents(t, theirs); err == nil && !slices.Equal(got, want) {
		t.Errorf("ours:\n%s\ntheirs:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := Unmount(ours.rootfs()); err != nil {
		t.Error(err)
	}
	if err := mount.UnmountRecursive(theirs.rootfs(), unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
	for _, s := range []side{ours, theirs} {
		os.Remove(filepath.Join(s.rootfs(), "made"))
	}
	return err
}

func bind(options ...string) func(s side) []oci.Mount {
	return func(s side) []oci.Mount {
		return []oci.Mount{{Type: "bind", Source: s.in("layers/a"), Options: options}}
	}
}

func tmpfs(options ...string) func(s side) []oci.Mount {
	return func(side) []oci.Mount { return []oci.Mount{{Type: "tmpfs", Source: "source", Options: options}} }
}

// overlay's options have % in place of the side's folder.
func overlay(options ...string) func(s side) []oci.Mount {
	return func(s side) []oci.Mount {
		m := oci.Mount{Type: "overlay", Source: "overlay"}
		for _, o := range options {
			m.Options = append(m.Options, strings.ReplaceAll(o, "%", string(s)))
		}
		return []oci.Mount{m}
	}
}

// below mounts on a target in a root filesystem.
func below(target string) func(s side) []oci.Mount {
	return func(s side) []oci.Mount {
		return append(bind("bind")(s), oci.Mount{Type: "bind", Source: s.in("volume"), Target: target, Options: []string{"rbind"}})
	}
}

// then mounts one thing upon another.
func then(all ...func(s side) []oci.Mount) func(s side) []oci.Mount {
	return func(s side) (mounts []oci.Mount) {
		for _, of := range all {
			mounts = append(mounts, of(s)...)
		}
		return mounts
	}
}

func of(m oci.Mount) func(s side) []oci.Mount {
	return func(side) []oci.Mount { return []oci.Mount{m} }
}

const (
	lower  = "lowerdir=%/layers/a:%/layers/b"
	upper  = "upperdir=%/upper"
	work   = "workdir=%/work"
	uids   = "uidmap=0:100000:65536"
	gids   = "gidmap=0:200000:65536"
	uidsOf = "uidmap=0:100000:2,2:300000:1000"
	gidsOf = "gidmap=0:200000:1,1:400000:1000"
)

func TestSameAsContainerd(t *testing.T) {
	var ids []string // those of ranges
	ids = append(ids, uidsOf, gidsOf)
	long := strings.Repeat("x", os.Getpagesize()+1)
	for name, mounts := range map[string]func(s side) []oci.Mount{
		"bind":                      bind("bind"),
		"rbind":                     bind("rbind"),
		"bind without the option":   bind(),
		"bind read-only":            bind("bind", "ro"),
		"rbind read-only":           bind("rbind", "ro"),
		"bind read-only and then":   bind("ro", "bind", "rw"),
		"bind with flags":           bind("bind", "nosuid", "nodev", "noexec", "noatime"),
		"bind read-only with flags": bind("rbind", "ro", "nosuid", "nodev", "noexec", "noatime"),
		"bind read-only, suid":      bind("rbind", "ro", "nosuid", "suid"),
		"bind with propagation":     bind("rbind", "rslave"),
		"bind with data":            bind("bind", "something=else"),
		"bind remounted":            then(bind("bind"), bind("remount", "bind", "ro", "nosuid")),
		"bind for a manager":        bind("bind", "X-containerd.mkdir.path=/x"),

		"tmpfs":                    tmpfs(),
		"tmpfs with data":          tmpfs("size=64k", "mode=700", "nr_inodes=10"),
		"tmpfs with flags":         tmpfs("nosuid", "nodev", "noexec", "noatime", "nodiratime"),
		"tmpfs with flags cleared": tmpfs("nosuid", "nodev", "noexec", "noatime", "nodiratime", "suid", "dev", "exec", "atime", "diratime"),
		"tmpfs synchronous":        tmpfs("sync", "dirsync", "mand"),
		"tmpfs asynchronous":       tmpfs("sync", "async", "mand", "nomand"),
		"tmpfs strictatime":        tmpfs("strictatime"),
		"tmpfs nostrictatime":      tmpfs("strictatime", "nostrictatime"),
		"tmpfs relatime":           tmpfs("relatime", "norelatime", "relatime"),
		"tmpfs read-only":          tmpfs("ro"),
		"tmpfs defaults":           tmpfs("defaults"),
		"tmpfs unknown":            tmpfs("something=else"),
		"tmpfs propagation":        tmpfs("private"),
		"tmpfs silent":             tmpfs("direct-io"),
		"tmpfs too long":           tmpfs(long),
		"tmpfs remounted":          then(tmpfs("size=64k"), tmpfs("remount", "ro", "size=128k")),
		"tmpfs remounted plainly":  then(tmpfs("size=64k"), tmpfs("remount", "ro")),
		"remount of nothing":       tmpfs("remount", "ro", "size=128k"),
		"stacked":                  then(tmpfs(), bind("bind")),

		"below":                       below("etc"),
		"below by a link up":          below("up"),
		"below by a link away":        below("away"),
		"below, absolute":             below("/etc/"),
		"below with dots":             below("../../etc/."),
		"below what is not there":     below("no/such"),
		"below a file":                below("a"),
		"below, and then a failure":   then(below("etc"), of(oci.Mount{Type: "no-such"})),
		"stacked, and then a failure": then(tmpfs(), bind("bind"), bind("rbind", uids, gids), of(oci.Mount{Type: "no-such"})),

		"no source":      of(oci.Mount{Type: "bind", Source: "/no/such", Options: []string{"bind"}}),
		"a file":         of(oci.Mount{Type: "bind", Source: "/proc/self/exe", Options: []string{"bind"}}),
		"no such type":   of(oci.Mount{Type: "no-such"}),
		"no type":        of(oci.Mount{Source: "/no/such"}),
		"no device":      of(oci.Mount{Type: "ext4", Source: "/no/such"}),
		"no device at":   of(oci.Mount{Type: "ext4", Source: "/proc/self/exe"}),
		"loop of none":   of(oci.Mount{Type: "ext4", Source: "/no/such", Options: []string{"loop"}}),
		"loop of a dir":  of(oci.Mount{Type: "ext4", Source: "/proc", Options: []string{"loop"}}),
		"mqueue":         of(oci.Mount{Type: "mqueue", Source: "none", Options: []string{"ro", "nosuid"}}),
		"no fuse helper": of(oci.Mount{Type: "fuse3.no-such", Source: "none"}),

		"overlay":                  overlay(lower, upper, work),
		"overlay of layers alone":  overlay(lower),
		"overlay of one layer":     overlay("lowerdir=%/layers/a"),
		"overlay read-only":        overlay(lower, upper, work, "ro", "nosuid"),
		"overlay volatile":         overlay(lower, upper, work, "volatile"),
		"overlay with index":       overlay("index=on", lower, upper, work, "redirect_dir=on"),
		"overlay without work":     overlay(lower, upper),
		"overlay without a layer":  overlay(lower + ":%/no-such"),
		"overlay of nothing":       overlay(),
		"overlay with a colon":     overlay(`lowerdir=%/layers/c\:d\,e:%/layers/a`),
		"overlay remounted":        then(overlay(lower, upper, work), overlay("remount", "ro")),
		"overlay unknown":          overlay(lower, "something=else"),
		"overlay for a manager":    overlay(lower, "X-containerd.x"),
		"overlay in one option":    overlay(lower + "," + upper + "," + work),
		"overlay and below":        then(overlay(lower, upper, work), below("etc")),
		"overlay of data layers":   overlay("lowerdir=%/layers/a::%/layers/b", "metacopy=on"),
		"overlay by single layers": overlay("lowerdir+=%/layers/a", "lowerdir+=%/layers/b"),

		"idmapped bind":               bind("rbind", uids, gids),
		"idmapped bind, ranges":       bind(append(ids, "bind")...),
		"idmapped bind with flags":    bind("rbind", "nosuid", uids, gids),
		"idmapped tmpfs":              tmpfs("nodev", uids, gids),
		"idmapped proc":               of(oci.Mount{Type: "proc", Source: "proc", Options: []string{uids, gids}}),
		"idmapped overlay":            overlay(lower, upper, work, uids, gids),
		"idmapped overlay, ranges":    overlay(append(ids, lower, upper, work)...),
		"idmapped overlay, read-only": overlay(uids, lower, gids, "ro", "nodev"),
		"idmapped overlay of one":     overlay("lowerdir=%/layers/a", upper, work, uids, gids),
		"idmapped overlay, no layers": overlay(uids, gids, upper, work),
		"idmapped overlay, no layer":  overlay(lower+":%/layers/no-such", uids, gids),
		"idmapped overlay of two":     overlay("lowerdir=%/layers/a:/proc", uids, gids),
		"idmapped overlay, no folder": overlay("lowerdir=/no-such/a/b:/no-such/a/c", uids, gids),
		"idmapped overlay, bad work":  overlay(lower, upper, "workdir=%/no-such", uids, gids),
		"users alone":                 bind("bind", uids),
		"groups alone":                bind("bind", gids),
		"no numbers":                  bind("bind", "uidmap=a:b:c", gids),
		"negative":                    bind("bind", "uidmap=0:-1:5", gids),
		"too few numbers":             bind("bind", "uidmap=0:1", gids),
		"no users":                    bind("bind", "uidmap=0:1:0", gids),
		"twice the same":              bind("bind", "uidmap=0:1:5,0:10:5", gids),
		"too large":                   bind("bind", "uidmap=0:99999999999:1", gids),
	} {
		t.Run(name, func(t *testing.T) {
			for of, propagation := range map[string]uintptr{"shared": unix.MS_SHARED, "private": unix.MS_PRIVATE, "slave": unix.MS_SLAVE} {
				if of != "shared" && testing.Short() {
					continue
				}
				ours, theirs := sides(t, propagation)
				err := compare(t, ours, theirs, mounts)
				if t.Logf("%s: %v", of, err); t.Failed() {
					return
				}
			}
		})
	}
}

// In a user namespace flags of mounts that come from outside are locked, and a
// bind mount cannot be made read-only without repeating them.
func TestSameAsContainerdInAUserNamespace(t *testing.T) {
	if locked := os.Getenv(envLocked); locked != "" {
		ours, theirs := sides(t, unix.MS_PRIVATE)
		for _, options := range [][]string{{"rbind"}, {"rbind", "ro"}, {"rbind", "ro", "nosuid"}, {"rbind", "ro", "noatime"}} {
			if err := compare(t, ours, theirs, of(oci.Mount{Type: "bind", Source: locked, Options: options})); err != nil && !slices.Contains(options, "noatime") {
				t.Errorf("%s: %v", options, err)
			}
		}
		for _, mounts := range []func(side) []oci.Mount{bind("rbind", "ro"), tmpfs("ro"), overlay(lower), bind("rbind", "uidmap=0:0:10", "gidmap=0:0:10")} {
			compare(t, ours, theirs, mounts)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NODIRATIME, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	defer child.Launching()()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), envLocked+"="+dir)
	maps := []syscall.SysProcIDMap{{Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFolderThatLayersHaveInCommon(t *testing.T) {
	for _, c := range []struct{ layers, dir, moved string }{
		{"/a/b/1:/a/b/2", "/a/b", "1:2"},
		{"/a/b/1/fs:/a/b/22/fs:/a/b/1", "/a/b", "1/fs:22/fs:1"},
		{"/a/b:/a/b/c", "/a", "b:b/c"},
		{"/a/bb/1:/a/b/2", "/a", "bb/1:b/2"},
		{`/a/c\:d/1::/a/c\:d/2`, `/a/c\:d`, "1::2"},
		{"/a/1:/b/2", "", ""},
		{"/1:/2", "", ""},
		{"a/1:a/2", "a", "1:2"},
		{"1:2", "", ""},
		{"", "", ""},
		// They could be written in fewer words.
		{"/a//b/1:/a/b/2", "", ""},
		{"/a/./b/1:/a/b/2", "", ""},
		{"/a/b/../b/1:/a/b/2", "", ""},
		{"/a/b/:/a/b/2", "", ""},
	} {
		layers := splitLayers(c.layers)
		dir := commonDir(layers)
		if dir != c.dir {
			t.Errorf("of %s: %q, want %q", c.layers, dir, c.dir)
		} else if got := moved(layers, dir, ""); dir != "" && got != c.moved {
			t.Errorf("%s from there: %s, want %s", c.layers, got, c.moved)
		}
	}
}

// An image of many layers, whose paths do not fit into the page that mount(2)
// takes; idmapped, too.
func TestSameAsContainerdOfManyLayers(t *testing.T) {
	ours, theirs := sides(t, unix.MS_SHARED)
	const layers = 120
	list := func(name func(i int) string) string {
		text := "lowerdir="
		for i := range layers {
			path := "many/" + name(i)
			for _, s := range []side{ours, theirs} {
				if err := os.MkdirAll(s.in(path), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, s.in(filepath.Join(path, fmt.Sprint("of-", i))), "")
			}
			text += "%/" + path + ":"
		}
		return strings.TrimSuffix(text, ":")
	}
	for name, options := range map[string][]string{
		"plain":             {list(func(i int) string { return fmt.Sprintf("%d/fs", i+1) })},
		"idmapped":          {list(func(i int) string { return fmt.Sprintf("%d/fs", i+1) }), upper, work, uids, gids},
		"names of a prefix": {list(func(i int) string { return fmt.Sprintf("prefix-%d", i) })},
		"much too long":     {list(func(i int) string { return fmt.Sprintf("%s-%d/fs", strings.Repeat("long", 20), i) })},
		"much too long and idmapped": {
			list(func(i int) string { return fmt.Sprintf("%s-%d/fs", strings.Repeat("long", 20), i) }), uids, gids},
	} {
		t.Run(name, func(t *testing.T) {
			err := compare(t, ours, theirs, overlay(options...))
			if (err != nil) != strings.HasPrefix(name, "much") {
				t.Error(err)
			}
		})
	}
	eventuallyOneWorkingDirectory(t, ours)
}
