// Package poll waits for what nobody tells.
package poll

import (
	"context"
	"fmt"
	"time"
)

// Until asks again and again whether something holds and returns nil when it
// does. When ctx ends before, the error says why it did not hold last.
func Until(ctx context.Context, holds func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
