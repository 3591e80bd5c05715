package process

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Limits bound what a container may take time for.
type Limits struct {
	// Operation bounds any state-changing operation as a whole.
	Operation time.Duration
	// Console bounds the wait for a terminal after the runtime has ended.
	Console time.Duration
	// Drain bounds how long Delete waits for output that somebody still holds
	// open.
	Drain time.Duration
	// ExecHold bounds how long the exit of the init process is held back for
	// those of the execs.
	ExecHold time.Duration
	// Killed bounds the wait for the end of a process after SIGKILL.
	Killed time.Duration
}

// DefaultLimits are generous where hosts are slow and short where people wait.
var DefaultLimits = Limits{
	Operation: 15 * time.Minute,
	Console:   10 * time.Second,
	Drain:     2 * time.Second,
	ExecHold:  10 * time.Second,
	Killed:    10 * time.Second,
}

// Annotations are how a user sets limits for one container: in its spec, or
// later by an update. All begin with the same words; those that do are known,
// or an error, all others are somebody else's.
const (
	ownAnnotations  = "io.containerd.cleat."
	drainAnnotation = ownAnnotations + "drain-limit"
)

// annotate takes annotations of the container into account, over those it had.
func (c *Container) annotate(annotations map[string]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limits, own := c.limits, maps.Clone(c.annotations)
	for key, value := range annotations {
		if !strings.HasPrefix(key, ownAnnotations) {
			continue
		}
		if key != drainAnnotation {
			return fmt.Errorf("annotation %s is not known, %s is: %w", key, drainAnnotation, errdefs.ErrInvalidArgument)
		}
		limit, err := time.ParseDuration(value)
		if err != nil || limit < 0 {
			return fmt.Errorf("annotation %s is %q, not a duration such as 2s: %w", key, value, errdefs.ErrInvalidArgument)
		}
		limits.Drain = limit
		if own == nil {
			own = map[string]string{}
		}
		own[key] = value
	}
	c.limits, c.annotations = limits, own
	return nil
}

// bounds are the limits as they are now.
func (c *Container) bounds() Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}
