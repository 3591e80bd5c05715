package cgroup

// This file takes a Group to another program of the same process.

import (
	"fmt"

	"github.com/cleatrun/cleat/oci/handover"
)

// HoldWatch keeps a watch from notifying, and waits until it does not. GoOnWatch undoes it; what happened meanwhile is told then.
func (g *Group) HoldWatch() {
	if w := g.watching(); w != nil {
		w.hold()
	}
}

// GoOnWatch undoes HoldWatch. When it fails there is no watch any more.
func (g *Group) GoOnWatch() error {
	w := g.watching()
	if w == nil {
		return nil
	}
	if err := w.goOn(); err != nil {
		g.mu.Lock()
		g.watch = nil
		g.mu.Unlock()
		return fmt.Errorf("watch OOM kills: %w", err)
	}
	return nil
}

func (g *Group) watching() *watch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.watch
}

// Handover is State with the files that are open; their names begin with name.
// The watch is held up.
func (g *Group) Handover(name string, files *handover.Files) State {
	s := g.State()
	c := &g.oom
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil {
		s.Counter = files.Add(name+"/oom-counter", c.file)
	}
	if s.Watched && c.event != nil {
		s.Event = files.Add(name+"/oom-event", c.event)
	}
	return s
}

// Inherit makes the Group that another program of this process has handed over.
// It opens nothing, so that it is quick however many there are: what it cannot
// have of files is read when it is asked for. As with Restore, the caller calls
// WatchOOM again, if State.Watched.
func Inherit(s State, files *handover.Inherited) (*Group, error) {
	g, err := describe(s)
	if err != nil {
		return nil, fmt.Errorf("restore cgroup: %w", err)
	}
	if g.sample, err = sampleOf(s.Mode, s.Sample); err != nil {
		return nil, fmt.Errorf("restore cgroup: %w", err)
	}
	c := &g.oom
	c.locate(g)
	if s.Counter != "" {
		if c.file, err = files.Take(s.Counter); err != nil {
			return nil, fmt.Errorf("restore cgroup: %w", err)
		}
	}
	if s.Event != "" {
		if c.event, err = files.Take(s.Event); err != nil {
			return nil, fmt.Errorf("restore cgroup: %w", err)
		}
	}
	c.restore(s.OOM)
	return g, nil
}
