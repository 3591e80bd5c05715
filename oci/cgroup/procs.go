package cgroup

// This file lists the processes of a group and of the groups nested in it,
// while all of them may come and go.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PIDs returns the processes of the group and of all groups nested in it, in
// ascending order, as the caller's PID namespace numbers them. It is empty when
// the cgroup is gone. A process that has ended is not listed, reaped or not, as
// soon as the kernel has taken it off its list.
func (g *Group) PIDs() ([]int, error) {
	var pids []int
	err := walk(g.dir(g.procsController()), func(dir string) error {
		var err error
		pids, err = appendPIDs(pids, dir)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Shared tells that the calling process is in the group, too: a container that was
// made without a cgroup of its own, as an ordinary user's is where none is
// delegated, stays in that of its shim. Then the group's processes and OOM kills
// may be anybody's. So it is taken where that cannot be told.
func (g *Group) Shared() bool {
	pids, err := g.PIDs()
	return err != nil || slices.Contains(pids, os.Getpid())
}

// walk calls visit for the group dir and each one nested in it, outermost
// first. Groups that vanish meanwhile are no error.
func walk(dir string, visit func(dir string) error) error {
	if dir == "" {
		return nil
	}
	if err := visit(dir); err != nil {
		if isGone(err) {
			return nil
		}
		return err
	}
	var st unix.Stat_t
	// The link count of a cgroup's directory is two and one for each nested
	// group; most containers have none, and this saves reading the directory.
	if err := unix.Lstat(dir, &st); err != nil || st.Nlink == 2 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !isGone(err) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := walk(filepath.Join(dir, e.Name()), visit); err != nil {
			return err
		}
	}
	return nil
}

// appendPIDs appends the processes of one group, not of nested ones.
func appendPIDs(pids []int, dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A threaded group: its processes are listed by the group above that
		// is the root of the threaded subtree (cgroups(7)).
		return pids, nil
	}
	if err != nil {
		return pids, err
	}
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return pids, fmt.Errorf("%s/cgroup.procs: %w", dir, err)
		}
		if pid > 0 { // 0 stands for a process that our PID namespace does not have
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Bears tells whether a line of /proc/<pid>/cgroup (cgroups(7)) names a cgroup
// made for the container id: one of that name, or a systemd scope "prefix-id".
func Bears(lines, id string) bool {
	for line := range strings.Lines(lines) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), ":") // hierarchy
		_, path, _ = strings.Cut(path, ":")                     // controllers
		for name := range strings.SplitSeq(path, "/") {
			scope := strings.TrimSuffix(name, ".scope")
			if name == id || scope == id || scope != name && strings.HasSuffix(scope, "-"+id) {
				return true
			}
		}
	}
	return false
}
