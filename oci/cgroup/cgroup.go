// Package cgroup knows the cgroup of one container: what it uses, which
// processes are in it, how to end them all, and whether the kernel killed any
// of them for want of memory.
//
// Statistics are, field by field, those of github.com/containerd/cgroups/v3, which
// the tests ask for them. Its readers are not used: they are slower, and bring
// much that a shim would keep in memory for as long as it lives. What that library
// does not have are the live watch of the OOM counters, process lists that bear
// groups vanishing under them, and a kill that is bounded and cannot hit a
// stranger.
//
// This file holds the Group itself: where its directories are, and its state as
// plain data. stat.go, stat1.go and stat2.go read usage, procs.go lists processes, kill.go ends them,
// oom.go and watch.go tell about OOM kills, hierarchy.go finds the mounts,
// handover.go takes a Group to another program of this process.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Mode says which of the kernel's two cgroup interfaces a Group is on.
type Mode string

const (
	// V1 is the legacy interface, one hierarchy for each controller. A hybrid
	// host (v1 controllers and an empty v2 hierarchy beside them) is V1 too.
	V1 Mode = "v1"
	// V2 is the unified hierarchy.
	V2 Mode = "v2"
)

// State is all that is needed to go on with a Group in another process image.
// It is plain data and safe to marshal as JSON.
type State struct {
	Mode Mode `json:"mode"`
	// Root is the directory below which the hierarchies are mounted (V1), or
	// the mount point of the unified one (V2).
	Root string `json:"root"`
	// Paths are the group's paths relative to their hierarchy, each beginning
	// with "/", by name of the controller (V1), or under "" (V2).
	Paths map[string]string `json:"paths"`
	// OOM is what is known about OOM kills.
	OOM OOMState `json:"oom"`
	// Sample is the last sample of Stat in its wire format, nil if none was
	// taken.
	Sample []byte `json:"sample,omitempty"`
	// Watched tells that there is a watch for OOM kills.
	Watched bool `json:"watched,omitempty"`
	// Counter and Event are the names of the files that are kept open, where
	// they are handed over: the OOM counter and, on V1, the watch's event.
	Counter string `json:"counter,omitempty"`
	Event   string `json:"event,omitempty"`
}

// Group is the cgroup of one container. It keeps at most two files open: the
// OOM counter and, on V1, the event descriptor of a watch. It does not own the
// cgroup itself, which the OCI runtime makes and removes. Safe for concurrent
// use.
type Group struct {
	mode  Mode
	root  string
	paths map[string]string

	oom oomCounter

	mu     sync.Mutex // protects what follows
	sample *Sample    // last result of Stat, never changed once stored
	watch  *watch
	closed bool
}

// Load finds the cgroup of the process pid from /proc/<pid>/cgroup and opens
// its OOM counter. Kills that happened before are counted as seen. On V1, where
// the process was put in a group of its own in some of the hierarchies alone, the
// Group has those alone.
//
// The error is errdefs.ErrNotFound when there is no such process or its cgroup
// is gone. The caller owns the Group and calls Close.
func Load(pid int) (*Group, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("load cgroup of pid %d: not a process id: %w", pid, errdefs.ErrInvalidArgument)
	}
	s, err := stateOf(strconv.Itoa(pid))
	if isGone(err) {
		return nil, fmt.Errorf("load cgroup of pid %d: no such process: %w", pid, errdefs.ErrNotFound)
	}
	if err == nil && s.Mode == V1 {
		err = s.leaveOutOurs()
	}
	if err != nil {
		return nil, fmt.Errorf("load cgroup of pid %d: %w", pid, err)
	}
	g, err := open(s)
	if err != nil {
		return nil, fmt.Errorf("load cgroup of pid %d: %w", pid, err)
	}
	g.oom.begin()
	return g, nil
}

// Restore makes the Group that s describes. The cgroup may be gone by now; then
// the last sample and the last OOM counter are all that is left. A watch is not
// restored: call WatchOOM again.
func Restore(s State) (*Group, error) {
	g, err := open(s)
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("restore cgroup: %w", err)
	}
	g.oom.restore(s.OOM)
	g.sample, err = sampleOf(s.Mode, s.Sample)
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("restore cgroup: %w", err)
	}
	return g, nil
}

// open makes a Group and opens what it keeps open. When the cgroup is gone it
// returns the Group together with errdefs.ErrNotFound.
func open(s State) (*Group, error) {
	g, err := describe(s)
	if err != nil {
		return nil, err
	}
	err = g.there()
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, err
	}
	g.oom.open(g)
	return g, err
}

// describe makes a Group of which nothing is open.
func describe(s State) (*Group, error) {
	if s.Mode != V1 && s.Mode != V2 {
		return nil, fmt.Errorf("unknown cgroup mode %q: %w", s.Mode, errdefs.ErrInvalidArgument)
	}
	return &Group{mode: s.Mode, root: s.Root, paths: s.Paths}, nil
}

// there finds out whether the cgroup is: on V1 in any hierarchy that has
// statistics, or in any at all if it is in none of these. When it is gone the error
// is errdefs.ErrNotFound.
func (g *Group) there() error {
	if g.mode == V2 {
		if err := g.checkPath(); err != nil {
			return err
		}
		if _, err := os.Lstat(g.dir("")); isGone(err) {
			return g.goneError()
		}
		return nil
	}
	known := false
	for _, c := range counted {
		if dir := g.dir(c.name); dir != "" {
			known = true
			if _, err := os.Lstat(dir); !isGone(err) {
				return err
			}
		}
	}
	if !known {
		for c := range g.paths {
			if _, err := os.Lstat(g.dir(c)); !isGone(err) {
				return err
			}
		}
	}
	return g.goneError()
}

// checkPath refuses what cannot be the path of a group on V2.
func (g *Group) checkPath() error {
	path := g.paths[""]
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.HasPrefix(path, unifiedMount) {
		return fmt.Errorf("cgroup path %q: %w", path, errdefs.ErrInvalidArgument)
	}
	return nil
}

// State returns what Restore needs. It reads nothing from the kernel but the
// OOM counter.
func (g *Group) State() State {
	g.mu.Lock()
	sample, watched := g.sample, g.watch != nil
	g.mu.Unlock()
	return State{
		Mode:    g.mode,
		Root:    g.root,
		Paths:   g.paths,
		OOM:     g.oom.state(),
		Sample:  sample.encoded(),
		Watched: watched,
	}
}

// Close ends a watch and closes the files. It leaves the cgroup and its
// processes alone. The last sample and the last OOM counter stay readable.
func (g *Group) Close() error {
	g.mu.Lock()
	w := g.watch
	g.watch, g.closed = nil, true
	g.mu.Unlock()
	if w != nil {
		w.stop()
	}
	g.oom.close()
	return nil
}

// dir is the directory of the group in the hierarchy of a controller, "" on V2.
// The result is "" when the group has no such controller.
func (g *Group) dir(controller string) string {
	p, ok := g.paths[controller]
	if !ok {
		return ""
	}
	return filepath.Join(g.root, controller, p)
}

// procsController is the controller whose hierarchy is asked for processes. On
// V1 any would do, since the runtime puts the container in all of them; the
// order prefers those that nobody but the runtime moves processes in.
func (g *Group) procsController() string {
	if g.mode == V2 {
		return ""
	}
	for _, c := range []string{"pids", "freezer", "devices", "memory", "cpuacct", "cpu", "systemd"} {
		if p, ok := g.paths[c]; ok && p != "/" {
			return c
		}
	}
	for c, p := range g.paths {
		if p != "/" {
			return c
		}
	}
	return "pids"
}

// isGone tells whether err is what the kernel answers for a cgroup (or process)
// that has been removed: ENOENT for its path, ENODEV for a file of it that was
// open before, ESRCH for files of a process that has ended.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}
