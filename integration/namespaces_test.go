package integration

// Containers whose users, mounts and clocks are not the host's.

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatrun/cleat/integration/kernel"
)

// mappedRoot is what root of a container in a user namespace is on the host.
const mappedRoot = 100000

// ownUsers puts a container into a user namespace of its own.
func ownUsers(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: mappedRoot, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = mapping, mapping
}

// reopener writes to its outputs by their names, as many programs do with their
// logs.
var reopener = []string{"sh", "-c", "echo direct; echo out >/dev/stdout; echo err >/dev/stderr; id -u; exit 3"}

// A user of the container must be able to open its outputs anew, for which they
// have to belong to it: that is what io_uid and io_gid are for.
func TestOutputsBelongToTheUserThatOptionsName(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for name, c := range map[string]struct {
		change func(*specs.Spec)
		uid    uint32
		want   string
	}{
		"namespace": {ownUsers, mappedRoot, "0"},
		"user":      {func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000} }, 1000, "1000"},
	} {
		m := l.prepare("owner-"+name, c.change, args(reopener...))
		m.options.IoUid, m.options.IoGid = c.uid, c.uid
		m.boot()
		out, errs := newTap(t), newTap(t)
		m.request.Stdout, m.request.Stderr = out.path, errs.path
		m.run()
		if status := m.wait(""); status != 3 {
			t.Errorf("%s ended with %d, want 3", m.id, status)
		}
		if got, want := out.all(), "direct\nout\n"+c.want+"\n"; got != want {
			t.Errorf("%s: stdout is %q, want %q", m.id, got, want)
		}
		if got := errs.all(); got != "err\n" {
			t.Errorf("%s: stderr is %q", m.id, got)
		}
		m.finish()
	}
}

// The same for an exec, and for a terminal, which the runtime gives an owner.
func TestOutputsOfExecsInAUserNamespace(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.prepare("owner-exec", ownUsers)
	m.options.IoUid, m.options.IoGid = mappedRoot, mappedRoot
	m.boot()
	m.run()
	for _, tty := range []bool{false, true} {
		out, errs := newTap(t), newTap(t)
		r := m.execRequest(fmt.Sprint("e-", tty), reopener...)
		r.Stdout, r.Terminal = out.path, tty
		if !tty {
			r.Stderr = errs.path
		}
		m.add(r)
		m.start(r.ExecID)
		if status := m.wait(r.ExecID); status != 3 {
			t.Errorf("%s ended with %d, want 3", r.ExecID, status)
		}
		want := "direct\nout\n0\n"
		if tty {
			want = "direct\r\nout\r\nerr\r\n0\r\n"
		}
		if got := out.all(); got != want {
			t.Errorf("%s: stdout is %q, want %q", r.ExecID, got, want)
		}
		m.delete(r.ExecID)
	}
	m.end()
}

// A root filesystem whose owners are mapped belongs to the container's root and
// not to nobody.
func TestRootFilesystemWithMappedOwners(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	if err := kernel.MapsOwners(l.rootfs()); err != nil {
		t.Skipf("the filesystem of %s maps no owners: %v", l.rootfs(), err)
	}
	for _, layer := range []string{"a", "b"} {
		if err := makeRootfs(l.Path("layers", layer)); err != nil {
			t.Fatal(err)
		}
	}
	mapping := fmt.Sprintf("0:%d:65536", mappedRoot)
	mapped := []string{"uidmap=" + mapping, "gidmap=" + mapping}
	bind := []string{"rbind"} // with ro, containerd's mount package maps nothing
	overlay := []string{"lowerdir=" + l.Path("layers/a") + ":" + l.Path("layers/b")}
	for name, c := range map[string]struct {
		mount *types.Mount
		want  string
	}{
		"plain":   {&types.Mount{Type: "bind", Source: l.rootfs(), Options: bind}, "65534\n"},
		"bind":    {&types.Mount{Type: "bind", Source: l.rootfs(), Options: append(bind, mapped...)}, "0\n"},
		"overlay": {&types.Mount{Type: "overlay", Source: "overlay", Options: append(overlay, mapped...)}, "0\n"},
	} {
		m := l.prepare("idmap-"+name, ownUsers, args("stat", "-c", "%u", "/bin/busybox"), func(s *specs.Spec) { s.Root.Path = "rootfs" })
		m.request.Rootfs = []*types.Mount{c.mount}
		out := newTap(t)
		m.request.Stdout, m.request.Stderr = out.path, out.path
		m.boot()
		m.run()
		m.wait("")
		if got := out.all(); got != c.want {
			t.Errorf("%s: busybox belongs to %q, want %q", m.id, got, c.want)
		}
		m.finish()
	}
}

// The namespaces of cgroups and of time, as far as the runtime and the kernel
// have them.
func TestNamespacesOfCgroupsAndTime(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skipf("the kernel has no time namespaces: %v", err)
	}
	l := newLone(t)
	const ahead = 1000000
	m := l.member("namespaces", args("sh", "-c", "cat /proc/self/cgroup; echo up $(cut -d. -f1 /proc/uptime)"), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace}, specs.LinuxNamespace{Type: specs.TimeNamespace})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: ahead}}
	})
	out := newTap(t)
	m.request.Stdout, m.request.Stderr = out.path, out.path
	m.run()
	m.wait("")
	text := out.all()
	if strings.Contains(text, m.id) {
		t.Errorf("the container sees the host's cgroups:\n%s", text)
	}
	up := 0
	if _, after, ok := strings.Cut(text, "up "); ok {
		fmt.Sscan(after, &up)
	}
	if up < ahead {
		t.Errorf("the container is up for %d seconds, want more than %d:\n%s", up, ahead, text)
	}
	m.finish()
}
