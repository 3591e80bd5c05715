package process

import (
	"context"
	"fmt"

	"github.com/cleatrun/cleat/oci/driver"
)

// Checkpoint writes the container to an image. Unless options say that it
// ends with that, it goes on afterwards.
func (c *Container) Checkpoint(ctx context.Context, options driver.CheckpointOptions) error {
	return c.init.do(ctx, OpCheckpoint, nil, func(ctx context.Context) (*Event, error) {
		return &Event{Kind: ContainerCheckpointed, Checkpoint: options.ImagePath}, c.runtime.Checkpoint(ctx, c.ID, options)
	})
}

// restore starts a container that was made of a checkpoint: only now is there
// an init process, and it runs at once.
func (c *Container) restore(ctx context.Context) (_ *Event, err error) {
	var undo undoing
	defer undo.unless(&err)
	if err := c.launchInit(ctx, &undo, func(ctx context.Context, s driver.Streams) (int, error) {
		return c.runtime.Restore(ctx, c.ID, driver.RestoreOptions{ImagePath: c.checkpoint}, s)
	}); err != nil {
		return nil, err
	}
	if err := c.init.openStdin(); err != nil {
		return nil, err
	}
	return &Event{Kind: ContainerStarted, PID: c.init.State().PID}, nil
}

// openStdin lets the client's input flow: the process is about to run.
func (p *Process) openStdin() error {
	p.container.mu.Lock()
	streams := p.streams
	p.container.mu.Unlock()
	if err := streams.OpenStdin(); err != nil {
		return fmt.Errorf("open standard input of %s: %w", p.name(), err)
	}
	return nil
}
