package process

import (
	"time"

	"github.com/cleatrun/cleat/oci/driver"
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
	// Runtime bounds the single calls to the OCI runtime.
	Runtime driver.Limits
}

// DefaultLimits are generous where hosts are slow and short where people wait.
var DefaultLimits = Limits{
	Operation: 15 * time.Minute,
	Console:   10 * time.Second,
	Drain:     2 * time.Second,
	ExecHold:  10 * time.Second,
	Killed:    10 * time.Second,
	Runtime:   driver.DefaultLimits,
}

// bounds are the limits as they are now.
func (c *Container) bounds() Limits {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limits
}
