package process

import (
	"context"
	"fmt"

	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/containerd/errdefs"
)

// This file is about the container's cgroup: what it uses, who is in it, whether
// it ran out of memory.

// loadCgroup finds the cgroup of the init process. Of one that is not on this host
// there is none.
func (c *Container) loadCgroup(pid int) (*cgroup.Group, error) {
	if c.elsewhere() {
		return nil, nil
	}
	return cgroup.Load(pid)
}

func (c *Container) watchCgroup(group *cgroup.Group) {
	shared := group.Shared()
	c.mu.Lock()
	c.cgroup, c.sharedCgroup = group, shared
	c.mu.Unlock()
	if shared {
		return // neither its controllers nor its OOM kills are ours
	}
	if err := group.EnableControllers(); err != nil {
		c.log("container %s: enable controllers: %v", c.ID, err)
	}
	if err := group.WatchOOM(func() { c.checkOOM() }); err != nil {
		c.log("container %s: watch for OOM: %v", c.ID, err)
	}
}

// removeCgroup removes what the OCI runtime may have left of the cgroup. One that
// somebody else uses too, because the container has none of its own, stays.
func (c *Container) removeCgroup() error {
	c.mu.Lock()
	group := c.cgroup
	c.mu.Unlock()
	if group == nil {
		return nil
	}
	pids, err := group.PIDs()
	if err == nil && len(pids) > 0 {
		return nil
	}
	return group.Remove(c.bounds().Killed)
}

// thawed thaws the cgroup of a container that has ended, and tells whether it
// was frozen: who ends while paused, by the OOM killer say, is paused for ever to
// the OCI runtime, which then refuses to delete it.
func (c *Container) thawed() bool {
	c.mu.Lock()
	group, shared := c.cgroup, c.sharedCgroup
	c.mu.Unlock()
	if group == nil || shared || !group.Frozen() {
		return false
	}
	if err := group.Thaw(); err != nil {
		c.log("container %s: thaw what has ended: %v", c.ID, err)
		return false
	}
	return true
}

// letDie lets the init process and with it the rest of the container die that
// was sent SIGKILL, whoever has frozen what of it.
func (c *Container) letDie() {
	c.mu.Lock()
	group, shared := c.cgroup, c.sharedCgroup
	c.mu.Unlock()
	if group != nil && !shared {
		group.LetDie()
	}
}

func (c *Container) dropCgroup() {
	c.mu.Lock()
	group := c.cgroup
	c.cgroup = nil
	c.mu.Unlock()
	if group != nil {
		group.Close()
	}
}

func (c *Container) oomKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.oom
}

// PIDs of all processes in the container, with the ids of the execs that are
// known; of a container without a cgroup of its own these alone. The init process is listed until Delete, also when it has ended:
// containerd takes a task without processes for one that it has lost.
func (c *Container) PIDs() (map[int]string, error) {
	c.mu.Lock()
	group, shared := c.cgroup, c.sharedCgroup
	known := map[int]string{}
	if pid := c.init.state.PID; pid != 0 {
		known[pid] = ""
	}
	for id, p := range c.execs {
		if p.state.State == Running {
			known[p.state.PID] = id
		}
	}
	ended := c.initGone
	c.mu.Unlock()
	var pids []int
	var err error
	switch {
	case group != nil && !shared:
		pids, err = group.PIDs()
	case c.elsewhere() && len(known) > 0 && !ended:
		pids, err = c.runtime.Processes(context.Background(), c.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("processes of container %s: %w", c.ID, err)
	}
	for _, pid := range pids {
		if _, ok := known[pid]; !ok {
			known[pid] = ""
		}
	}
	return known, nil
}

// Stats of the container's cgroup.
func (c *Container) Stats() (*cgroup.Sample, error) {
	c.mu.Lock()
	group := c.cgroup
	c.mu.Unlock()
	if group == nil && c.elsewhere() {
		return c.remoteStats()
	}
	if group == nil {
		return nil, fmt.Errorf("statistics of container %s: it has no cgroup: %w", c.ID, errdefs.ErrNotFound)
	}
	stats, err := group.Stat()
	if err != nil {
		return nil, fmt.Errorf("statistics of container %s: %w", c.ID, err)
	}
	return stats, nil
}

// checkOOM tells an OOM kill that was not told yet, and whether there ever was
// one.
func (c *Container) checkOOM() bool {
	c.mu.Lock()
	group, shared := c.cgroup, c.sharedCgroup
	c.mu.Unlock()
	if group == nil || shared {
		return false
	}
	fresh, err := group.OOMSince()
	if err != nil {
		c.log("container %s: read OOM counter: %v", c.ID, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh && c.init.state.State != Deleted {
		c.oom = true
		if c.init.launched { // else it is told with the creation, if that succeeds
			c.tell(Event{Kind: OutOfMemory})
		}
	}
	return c.oom
}
