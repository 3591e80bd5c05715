package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
