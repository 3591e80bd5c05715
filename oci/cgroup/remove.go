package cgroup

// This file removes the directories of a group that the OCI runtime has left:
// it forgets them when its own state of the container is lost.

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

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
