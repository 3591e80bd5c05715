package cgroup

// This file finds out where cgroup hierarchies are mounted, and turns the lines
// of /proc/<pid>/cgroup (cgroups(7)) into directories there.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const unifiedMount = "/sys/fs/cgroup"

// v1Mounts are the mounted v1 hierarchies of this mount namespace. They are
// read once: on a node with hundreds of containers mountinfo is megabytes of text.
type v1Mounts struct {
	root string
	// tops are the cgroups that are mounted, by controller: "/" on a host,
	// something longer in a container that was given a part of the tree.
	tops map[string]string
}

var readV1Mounts = sync.OnceValues(func() (v1Mounts, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return v1Mounts{}, err
	}
	defer f.Close()
	m, err := parseV1Mounts(f)
	if err != nil {
		return m, err
	}
	if m.root == "" {
		return m, fmt.Errorf("no cgroup hierarchy is mounted: %w", errdefs.ErrNotFound)
	}
	return m, nil
})

// Prepare finds out what does not depend on the container, for who does something
// else before Load.
func Prepare() {
	if cgroups.Mode() != cgroups.Unified {
		readV1Mounts() // Load has the error
	}
}

// parseV1Mounts reads proc_pid_mountinfo(5):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// The first mount of a controller counts. The file can be large and has little in
// it that is kept, so it goes through a small buffer.
func parseV1Mounts(mountinfo io.Reader) (v1Mounts, error) {
	m := v1Mounts{tops: make(map[string]string)}
	lines := bufio.NewReaderSize(mountinfo, 1024)
	var long []byte // the beginning of a line that is longer
	for {
		line, err := lines.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line, long = long, long[:0]
		}
		if bytes.Contains(line, []byte(" - cgroup ")) {
			m.add(string(line))
		}
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return m, fmt.Errorf("read mountinfo: %w", err)
		}
	}
}

// add takes what a line of the file says.
func (m *v1Mounts) add(line string) {
	before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
	mount, fs := strings.Fields(before), strings.Fields(after)
	if len(mount) < 5 || len(fs) < 3 || fs[0] != "cgroup" {
		return
	}
	if m.root == "" {
		m.root = filepath.Dir(mount[4])
	}
	for option := range strings.SplitSeq(fs[2], ",") {
		if _, ok := m.tops[option]; !ok {
			m.tops[option] = mount[3]
		}
	}
}

// hybrid is the directory, beside those of the controllers, where systemd mounts
// the v2 hierarchy on a V1 host. It has no controllers there, but OCI runtimes
// make a group in it too.
const hybrid = "unified"

// seen are these paths, as /proc/<pid>/cgroup names them, below the mounts of this
// mount namespace, by the names of directories. unified is the path in a v2
// hierarchy, or empty.
func (m v1Mounts) seen(controllers map[string]string, unified string) map[string]string {
	paths := make(map[string]string, len(controllers)+1)
	for name, path := range controllers {
		if top, ok := m.tops[name]; ok {
			paths[strings.TrimPrefix(name, "name=")] = belowTop(top, path)
		}
	}
	if unified != "" {
		paths[hybrid] = filepath.Join("/", strings.TrimSuffix(unified, " (deleted)"))
	}
	return paths
}

// stateV1 describes the group with these paths, leaving out the hierarchies that are
// not mounted or do not have it.
func stateV1(controllers map[string]string, unified string) (State, error) {
	mounts, err := readV1Mounts()
	if err != nil {
		return State{}, err
	}
	s := State{Mode: V1, Root: mounts.root, Paths: mounts.seen(controllers, unified)}
	maps.DeleteFunc(s.Paths, func(name, path string) bool { return !exists(filepath.Join(s.Root, name, path)) })
	if len(s.Paths) == 0 {
		return State{}, fmt.Errorf("no directory of it in any hierarchy below %s: %w", s.Root, errdefs.ErrNotFound)
	}
	return s, nil
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// stateOf describes the group of a process, as /proc/<process>/cgroup has it.
func stateOf(process string) (State, error) {
	controllers, unified, err := cgroups.ParseCgroupFileUnified("/proc/" + process + "/cgroup")
	if err != nil {
		return State{}, err
	}
	if cgroups.Mode() == cgroups.Unified {
		return stateV2(unifiedMount, unified)
	}
	return stateV1(controllers, unified)
}

// leaveOutOurs drops the hierarchies in which the group is that of this process, too,
// unless it is so in all of them: an OCI runtime need not know every hierarchy, and
// in one that it does not know the container stays where the shim is.
func (s State) leaveOutOurs() error {
	mounts, err := readV1Mounts()
	if err != nil {
		return err
	}
	controllers, unified, err := cgroups.ParseCgroupFileUnified("/proc/self/cgroup")
	if err != nil {
		return err
	}
	ours := mounts.seen(controllers, unified)
	own := false // the container has any
	for controller, path := range s.Paths {
		own = own || path != "/" && path != ours[controller]
	}
	if own {
		maps.DeleteFunc(s.Paths, func(controller, path string) bool {
			return path != "/" && path == ours[controller]
		})
	}
	return nil
}

// find returns the group of a path that is the same in all hierarchies, as far as
// these have it.
func find(path string) (*Group, error) {
	if cgroups.Mode() == cgroups.Unified {
		s, err := stateV2(unifiedMount, path)
		if err != nil {
			return nil, err
		}
		g, err := open(s)
		if err != nil && g != nil {
			g.Close()
		}
		return g, err
	}
	mounts, err := readV1Mounts()
	if err != nil {
		return nil, err
	}
	paths := make(map[string]string, len(mounts.tops))
	for name, top := range mounts.tops {
		paths[name] = filepath.Join(top, path)
	}
	s, err := stateV1(paths, path)
	if err != nil {
		return nil, err
	}
	return open(s)
}

// belowTop is the path of a cgroup as seen below a mount of the cgroup top.
func belowTop(top, path string) string {
	rel, err := filepath.Rel(top, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return filepath.Join("/", path)
	}
	return filepath.Join("/", rel)
}

func stateV2(root, path string) (State, error) {
	if path == "" {
		return State{}, fmt.Errorf("not in the unified hierarchy: %w", errdefs.ErrNotFound)
	}
	// A process whose cgroup was removed while it was a zombie.
	path = strings.TrimSuffix(path, " (deleted)")
	return State{Mode: V2, Root: root, Paths: map[string]string{"": filepath.Join("/", path)}}, nil
}
