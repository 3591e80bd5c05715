package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A runtime that is killed in the middle of a create leaves a cgroup that nobody
// has a pid of.
func TestEmptyGroupIsRemovedByItsPathAndOneInUseIsNot(t *testing.T) {
	tr := newGroup(t)
	p := startIn(t, "sleep", true, tr.all()...)
	g := load(t, p.Process.Pid)
	path := g.paths[g.procsController()]

	remove := func() {
		t.Helper()
		if err := RemoveEmpty(path, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	for _, dir := range tr.all() {
		if _, err := os.Lstat(dir); err != nil {
			t.Errorf("a group with a process is removed: %v", err)
		}
	}
	p.Process.Kill()
	p.mustEnd(t)
	for range 2 { // the second finds nothing
		remove()
	}
	for _, dir := range tr.all() {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	for _, none := range []string{"", "/", "system.slice:cleat:none", filepath.Join(path, "none")} {
		if err := RemoveEmpty(none, 0); err != nil {
			t.Errorf("%q: %v", none, err)
		}
	}
}

// An OCI runtime need not know all hierarchies. In those the container stays
// where its shim is, and that is not the container's: not to be read, and not to
// be removed with what is in it.
func TestGroupThatIsTheShimsOwnIsNotTheContainers(t *testing.T) {
	ours, tr := newV1(t), newV1(t)
	const controller = "pids"
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(before), ":"+controller+":")
	if !ok {
		t.Fatalf("no hierarchy %s in\n%s", controller, before)
	}
	was, _, _ := strings.Cut(after, "\n")
	back := filepath.Join(tr.root, controller, was)
	join(t, ours.dirs[controller], os.Getpid())
	defer join(t, back, os.Getpid())
	nested := filepath.Join(ours.dirs[controller], "nested")
	if err := os.Mkdir(nested, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(nested)

	var dirs []string
	for name, dir := range tr.dirs {
		if name != controller {
			dirs = append(dirs, dir)
		}
	}
	p := startIn(t, "sleep", true, dirs...)
	g := load(t, p.Process.Pid)
	if path, ok := g.paths[controller]; ok {
		t.Errorf("%s has the shim's group %s", controller, path)
	}
	if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Errorf("the processes are %v, %v, want %d", pids, err, p.Process.Pid)
	}
	if g.Shared() {
		t.Error("the group is taken for a shared one")
	}
	p.Process.Kill()
	p.mustEnd(t)
	if err := g.Remove(time.Second); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{ours.dirs[controller], nested} {
		if _, err := os.Lstat(dir); err != nil {
			t.Error(err)
		}
	}
}
