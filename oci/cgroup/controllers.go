package cgroup

// This file enables the controllers of a container's cgroup.

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/containerd/cgroups/v3/cgroup2"
)

// EnableControllers makes every controller of the host available in the
// container's cgroup on V2, by way of the groups above it; on V1 there is
// nothing to do. What a user namespace is not allowed to change is no error.
func (g *Group) EnableControllers() error {
	if g.mode != V2 {
		return nil
	}
	if err := g.loadLate(); err != nil {
		return err
	}
	all, err := g.v2.RootControllers()
	if err != nil {
		return fmt.Errorf("enable controllers of cgroup %s: %w", g.paths[""], err)
	}
	have, err := g.v2.Controllers()
	if err == nil && !slices.ContainsFunc(all, func(c string) bool { return !slices.Contains(have, c) }) {
		g.oom.open(g)
		return nil
	}
	err = g.v2.ToggleControllers(all, cgroup2.Enable)
	g.oom.open(g)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !isGone(err) {
		return fmt.Errorf("enable controllers of cgroup %s: %w", g.paths[""], err)
	}
	return nil
}
