package cgroup

// This file removes the directories of a group that the OCI runtime has left:
// it forgets them when its own state of the container is lost.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// dying bounds how long RemoveEmpty waits for what runs in a group to end: who has
// lost its OCI runtime ends by itself.
const dying = 2 * time.Second

// RemoveEmpty removes the group that the runtime spec's cgroupsPath names, as
// Remove does, if there is one and nothing runs in it, or only what is about to
// end. A path for systemd is left to systemd, which removes what is empty by
// itself.
func RemoveEmpty(cgroupsPath string, limit time.Duration) error {
	if !filepath.IsAbs(cgroupsPath) || filepath.Clean(cgroupsPath) == "/" {
		return nil
	}
	g, err := find(cgroupsPath)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", cgroupsPath, err)
	}
	defer g.Close()
	for deadline := time.Now().Add(min(dying, limit)); ; time.Sleep(5 * time.Millisecond) {
		pids, err := g.PIDs()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return g.Remove(limit)
		}
		if time.Now().After(deadline) {
			return nil
		}
	}
}

// Remove removes the group and those nested in it, in every hierarchy. What is
// gone is no error. A group is busy until the last of its processes has been
// reaped; Remove waits for that, at most for limit in all.
func (g *Group) Remove(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	var failures error
	for controller, path := range g.paths {
		if path != "/" {
			failures = errors.Join(failures, removeDirs(g.dir(controller), deadline))
		}
	}
	return failures
}

func removeDirs(dir string, deadline time.Time) error {
	// As a rule the OCI runtime has removed it, and to ask is quicker than to open.
	var st unix.Stat_t
	if isGone(unix.Lstat(dir, &st)) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDirs(filepath.Join(dir, e.Name()), deadline); err != nil {
				return err
			}
		}
	}
	// The kernel tells nobody when a group can go.
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Rmdir(dir)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			if err != nil {
				err = &fs.PathError{Op: "remove cgroup", Path: dir, Err: err}
			}
			return ignoreGone(err)
		}
		time.Sleep(pause)
	}
}

func ignoreGone(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}
