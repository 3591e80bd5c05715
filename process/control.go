package process

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Pause freezes the container's processes.
func (c *Container) Pause(ctx context.Context) error {
	return c.init.do(ctx, OpPause, nil, func(ctx context.Context) (*Event, error) {
		return &Event{Kind: ContainerPaused}, c.runtime.Pause(ctx, c.ID)
	})
}

// Resume undoes Pause.
func (c *Container) Resume(ctx context.Context) error {
	return c.init.do(ctx, OpResume, nil, func(ctx context.Context) (*Event, error) {
		return &Event{Kind: ContainerResumed}, c.runtime.Resume(ctx, c.ID)
	})
}

// Update changes the limits of the container's cgroup. resources are the
// runtime spec's Linux resources as JSON; annotations are for the shim itself,
// which knows none yet.
func (c *Container) Update(ctx context.Context, resources []byte, _ map[string]string) error {
	var limits specs.LinuxResources
	if err := json.Unmarshal(resources, &limits); err != nil {
		return fmt.Errorf("resources for container %s: %w: %w", c.ID, err, errdefs.ErrInvalidArgument)
	}
	return c.init.do(ctx, OpUpdate, nil, func(ctx context.Context) (*Event, error) {
		return nil, c.runtime.Update(ctx, c.ID, &limits)
	})
}
