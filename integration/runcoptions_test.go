package integration

// The options of containerd.runc.v1.Options, field by field. io_uid and io_gid
// are with namespaces, criu's folders with checkpoints, systemd_cgroup with
// systemd.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// binary_name and root are honoured by every call, also by those that the
// action `delete` makes when the shim has died. Stock fails: the dead shim's
// socket stays.
func TestOptionsBinaryNameAndRoot(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, dies := range []bool{false, true} {
		m := l.prepare(fmt.Sprint("root-", dies))
		m.options.BinaryName = scripted(t, `echo "$@" >>$0.calls`)
		m.options.Root = l.Path("elsewhere")
		m.boot()
		pid := m.create()
		m.start("")
		m.exec("e", "true")
		m.wait("e")
		state := filepath.Join(m.options.Root, l.Namespace, m.id)
		if _, err := os.Stat(state); err != nil {
			t.Errorf("the runtime's state is not where it was asked for: %v", err)
		}
		if dies {
			if err := unix.Kill(m.shimPID(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.clean()
			eventually(t, func() error { return aliveNot(pid) })
		} else {
			m.end()
		}
		if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the runtime's state is left: %v", err)
		}
		text, err := os.ReadFile(m.options.BinaryName + ".calls")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for call := range strings.Lines(string(text)) {
			if !strings.Contains(call, "--root "+filepath.Dir(state)+" ") {
				t.Errorf("a call without the root: %s", call)
			}
			for _, command := range []string{"create", "start", "exec", "delete"} {
				seen[command] = seen[command] || strings.Contains(call, " "+command+" ")
			}
		}
		if len(seen) != 4 || !seen["create"] || !seen["start"] || !seen["exec"] || !seen["delete"] {
			t.Errorf("the runtime was called so:\n%s", text)
		}
	}
}

// A runtime that is not there is told by its name, and leaves nothing.
func TestOptionsBinaryNameOfNothing(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, name := range []string{"no-such-runtime", "/no/such/runtime"} {
		m := l.prepare("nothing")
		m.options.BinaryName = name
		m.boot()
		if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a container of the runtime %s gives %v", name, err)
		}
		m.shutdown()
		m.clean()
	}
}

func TestOptionsNoPivotRootAndNoNewKeyring(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, given := range []bool{false, true} {
		m := l.prepare(fmt.Sprint("keyring-", given))
		m.options.BinaryName = scripted(t, `[ $command = create ] && echo "$@" >$0.call`)
		m.options.NoPivotRoot, m.options.NoNewKeyring = given, given
		m.boot()
		m.run().end()
		text, err := os.ReadFile(m.options.BinaryName + ".call")
		if err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{" --no-pivot ", " --no-new-keyring "} {
			if strings.Contains(string(text), flag) != given {
				t.Errorf("asked for %t, the runtime is called with %s", given, text)
			}
		}
	}
}

// The shim, and not the container, joins the cgroup.
func TestOptionsShimCgroup(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	path := "/" + l.Namespace + "/shim"
	for _, dir := range shimCgroups(t, path) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
	}
	m := l.prepare("shim-cgroup")
	m.options.ShimCgroup = path
	m.boot()
	pid := m.create()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.shimPID()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), ":"+path+"\n") {
		t.Errorf("the shim is in these cgroups:\n%s", text)
	}
	if text, err = os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), ":"+path+"\n") || !strings.Contains(string(text), m.id) {
		t.Errorf("the container is in these cgroups:\n%s", text)
	}
	shim := m.shimPID()
	m.end()
	eventually(t, func() error { return aliveNot(shim) })
	for _, dir := range shimCgroups(t, path) {
		eventually(t, func() error { return os.Remove(dir) })
	}
}

// shimCgroups are the folders of a cgroup, in the hierarchies that there are.
func shimCgroups(t *testing.T, path string) []string {
	t.Helper()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return []string{filepath.Join("/sys/fs/cgroup", path)}
	}
	var dirs []string
	for _, controller := range []string{"memory", "cpu", "pids"} {
		mount := filepath.Join("/sys/fs/cgroup", controller)
		if _, err := os.Stat(filepath.Join(mount, "cgroup.procs")); err == nil {
			dirs = append(dirs, filepath.Join(mount, path))
		}
	}
	if len(dirs) == 0 {
		t.Skip("no cgroup hierarchy is mounted")
	}
	return dirs
}
