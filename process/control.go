package process

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Pause freezes the container's processes. Those that are killed meanwhile do
// not stay frozen.
func (c *Container) Pause(ctx context.Context) error {
	return c.init.do(ctx, OpPause, nil, func(ctx context.Context) (*Event, error) {
		if err := c.runtime.Pause(ctx, c.ID); err != nil {
			return nil, err
		}
		// A Kill that comes later sees this Pause, or its end, and thaws itself.
		c.mu.Lock()
		killed, group := c.init.killed, c.cgroup
		c.mu.Unlock()
		if killed && group != nil {
			return &Event{Kind: ContainerPaused}, c.init.thaw(group)
		}
		return &Event{Kind: ContainerPaused}, nil
	})
}

// Resume undoes Pause.
func (c *Container) Resume(ctx context.Context) error {
	return c.init.do(ctx, OpResume, nil, func(ctx context.Context) (*Event, error) {
		return &Event{Kind: ContainerResumed}, c.runtime.Resume(ctx, c.ID)
	})
}

// Update changes the limits of the container's cgroup, and what annotations
// say to the shim itself. resources are the runtime spec's Linux resources as
// JSON; either may be empty.
func (c *Container) Update(ctx context.Context, resources []byte, annotations map[string]string) error {
	var limits specs.LinuxResources
	if len(resources) > 0 {
		if err := json.Unmarshal(resources, &limits); err != nil {
			return fmt.Errorf("resources for container %s: %w: %w", c.ID, err, errdefs.ErrInvalidArgument)
		}
	}
	return c.init.do(ctx, OpUpdate, nil, func(ctx context.Context) (*Event, error) {
		if err := c.annotate(annotations); err != nil {
			return nil, fmt.Errorf("update container %s: %w", c.ID, err)
		}
		if len(resources) == 0 {
			return nil, nil
		}
		return nil, c.runtime.Update(ctx, c.ID, &limits)
	})
}
