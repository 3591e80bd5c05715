package cgroup

// This file enables the controllers of a container's cgroup.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// EnableControllers makes every controller of the host available in the
// container's cgroup on V2, by way of the groups above it; on V1 there is
// nothing to do. What a user namespace is not allowed to change is no error.
func (g *Group) EnableControllers() error {
	if g.mode != V2 {
		return nil
	}
	all, err := controllers(g.root)
	if err == nil {
		err = g.checkPath()
	}
	if err != nil {
		return fmt.Errorf("enable controllers of cgroup %s: %w", g.paths[""], err)
	}
	have, err := controllers(g.dir(""))
	if err == nil && !slices.ContainsFunc(all, func(c string) bool { return !slices.Contains(have, c) }) {
		g.oom.open(g)
		return nil
	}
	err = g.enable(all)
	g.oom.open(g)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !isGone(err) {
		return fmt.Errorf("enable controllers of cgroup %s: %w", g.paths[""], err)
	}
	return nil
}

// controllers are those that a group has.
func controllers(dir string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return strings.Fields(string(b)), err
}

// enable lets every group above this one, from the root on, pass controllers on.
// The error is that of the last, which is next to the group: those higher up are
// often somebody else's, and pass on already what is wanted.
func (g *Group) enable(controllers []string) (err error) {
	if len(controllers) == 0 {
		return nil
	}
	text := "+" + strings.Join(controllers, " +")
	dir := g.root
	for name := range strings.SplitSeq(strings.Trim(g.paths[""], "/"), "/") {
		if name == "" {
			break
		}
		err = writeFile(filepath.Join(dir, "cgroup.subtree_control"), text)
		dir = filepath.Join(dir, name)
	}
	return err
}
