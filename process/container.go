// Package process is one container and its processes: what is allowed when,
// how they are launched, how they end, and what is told of them. It knows
// nothing of RPCs; the OCI runtime is oci's.
package process

import (
	"fmt"
	"sync"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const killSignal = unix.SIGKILL

// Config describes a container to be created.
type Config struct {
	ID, Namespace string
	Bundle        oci.Bundle
	Options       oci.Options
	Rootfs        []oci.Mount
	Stdio         stdio.Spec
	// Output is what holds unless an annotation says otherwise: stdioDirect,
	// stdioCopy or, also by the empty string, stdioAuto.
	Output string
	// Logs is what becomes of the init process's output that nobody takes,
	// unless an annotation says otherwise.
	Logs stdio.Logs
	// Checkpoint is a folder with a checkpoint image to restore from, or empty.
	Checkpoint string
	// Publish takes the container's events in order. It must not block.
	Publish func(Event)
	// Gone is called once, when the container is deleted or could not be
	// created, before who asked for that has the answer. It must not block.
	Gone func()
	Log  func(format string, args ...any)
	// Done, if not nil, is told of each operation that has ended. It must not
	// block.
	Done func(Done)
	// ReadFirst is for how long, at most, the exit of the init process is held back
	// until its client has read what it has written; 0 means a second. It is no part
	// of the container's state.
	ReadFirst time.Duration
	// Limits; the zero value means DefaultLimits.
	Limits Limits
	// Allowed are the annotations that are listened to, without what all of
	// the shim's begin with; nil means all.
	Allowed []string
}

// Container is one container. All methods are safe for concurrent use.
type Container struct {
	ID string

	namespace  string
	bundle     oci.Bundle
	rootfs     []oci.Mount
	output     string
	logs       logs
	allowed    []string
	checkpoint string
	readFirst  time.Duration
	publish    func(Event)
	gone       func()
	log        func(format string, args ...any)
	done       func(Done)

	// Set by Create before the container is created, constant afterwards.
	options         oci.Options
	runtime         *driver.Runtime
	ownPIDNamespace bool
	cgroupsPath     string

	// mu guards what follows and the processes. It is never held over a call
	// to the OCI runtime.
	mu           sync.Mutex
	limits       Limits
	annotations  map[string]string
	init         *Process
	execs        map[string]*Process
	cgroup       *cgroup.Group
	sharedCgroup bool // it is the shim's, too: see cgroup.Group.Shared
	oom          bool
	initGone     bool
	execsRunning int
	// execsGone is there while the exit of init waits for the execs' and
	// closed with the last of these.
	execsGone chan struct{}
	// held is closed while the container is held up; see Hold.
	held     chan struct{}
	watchers sync.WaitGroup // one for each watch
	// rewatch tells that the cgroup is to be watched for OOM kills from GoOn on.
	rewatch bool
}

// New returns the container that Create will create. It does nothing yet.
func New(config Config) *Container {
	c := &Container{
		ID:         config.ID,
		namespace:  config.Namespace,
		bundle:     config.Bundle,
		rootfs:     config.Rootfs,
		output:     config.Output,
		logs:       logs(config.Logs),
		allowed:    config.Allowed,
		checkpoint: config.Checkpoint,
		readFirst:  config.ReadFirst,
		options:    config.Options,
		limits:     config.Limits,
		publish:    config.Publish,
		gone:       config.Gone,
		log:        config.Log,
		done:       config.Done,
		execs:      map[string]*Process{},
		held:       make(chan struct{}),
	}
	if c.limits == (Limits{}) {
		c.limits = DefaultLimits
	}
	if c.readFirst == 0 {
		c.readFirst = readFirst
	}
	c.init = newProcess(c, "", config.Stdio)
	return c
}

// Init is the container's init process.
func (c *Container) Init() *Process { return c.init }

// Bundle of the container.
func (c *Container) Bundle() oci.Bundle { return c.bundle }

// Process returns the init process for an empty id, else the exec of that id.
func (c *Container) Process(execID string) (*Process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.execs[execID]
	if p == nil {
		return nil, fmt.Errorf("container %s has no exec %s: %w", c.ID, execID, errdefs.ErrNotFound)
	}
	return p, nil
}

// Execs counts those that were added and not deleted.
func (c *Container) Execs() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.execs)
}

// tell publishes an event; the caller holds c.mu, which makes the order of
// events that of the states.
func (c *Container) tell(e Event) {
	e.Container = c.ID
	c.publish(e)
}
