// Package process is one container and its processes: what is allowed when,
// how they are launched, how they end, and what is told of them. It knows
// nothing of RPCs; the OCI runtime is oci's.
package process

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/rootfs"
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
	// Checkpoint is a folder with a checkpoint image to restore from, or empty.
	Checkpoint string
	// Publish takes the container's events in order. It must not block.
	Publish func(Event)
	// Gone is called once, when the container is deleted or could not be
	// created, before who asked for that has the answer. It must not block.
	Gone func()
	Log  func(format string, args ...any)
	// Limits; the zero value means DefaultLimits.
	Limits Limits
}

// Container is one container. All methods are safe for concurrent use.
type Container struct {
	ID string

	namespace  string
	bundle     oci.Bundle
	rootfs     []oci.Mount
	checkpoint string
	publish    func(Event)
	gone       func()
	log        func(format string, args ...any)

	// Set by Create before the container is created, constant afterwards.
	options         oci.Options
	runtime         *driver.Runtime
	ownPIDNamespace bool

	// mu guards what follows and the processes. It is never held over a call
	// to the OCI runtime.
	mu           sync.Mutex
	limits       Limits
	annotations  map[string]string
	init         *Process
	execs        map[string]*Process
	cgroup       *cgroup.Group
	oom          bool
	initGone     bool
	execsRunning int
	// execsGone is there while the exit of init waits for the execs' and
	// closed with the last of these.
	execsGone chan struct{}
}

// New returns the container that Create will create. It does nothing yet.
func New(config Config) *Container {
	c := &Container{
		ID:         config.ID,
		namespace:  config.Namespace,
		bundle:     config.Bundle,
		rootfs:     config.Rootfs,
		checkpoint: config.Checkpoint,
		options:    config.Options,
		limits:     config.Limits,
		publish:    config.Publish,
		gone:       config.Gone,
		log:        config.Log,
		execs:      map[string]*Process{},
	}
	if c.limits == (Limits{}) {
		c.limits = DefaultLimits
	}
	c.init = newProcess(c, "", config.Stdio)
	return c
}

// Create creates the container: root filesystem, standard IO, and an init
// process that waits for Start. When it fails nothing of it is left.
func (c *Container) Create(ctx context.Context) error {
	op := OpCreate
	if c.checkpoint != "" {
		op = OpPrepare
	}
	return c.init.do(ctx, op, nil, c.create)
}

func (c *Container) create(ctx context.Context) (_ *Event, err error) {
	var undo undoing
	defer undo.unless(&err)
	spec, err := c.bundle.ReadSpec()
	if err != nil {
		return nil, fmt.Errorf("create container %s: %w: %w", c.ID, err, errdefs.ErrInvalidArgument)
	}
	if err := c.annotate(spec.Annotations); err != nil {
		return nil, fmt.Errorf("create container %s: %w", c.ID, err)
	}
	c.mu.Lock()
	c.ownPIDNamespace = spec.OwnPIDNamespace()
	c.options.SystemdCgroup = c.options.SystemdCgroup || spec.SystemdCgroup()
	c.runtime = driver.New(c.bundle, c.namespace, c.options)
	c.mu.Unlock()
	if err := c.bundle.WriteOptions(c.options); err != nil {
		return nil, fmt.Errorf("create container %s: keep its options: %w", c.ID, err)
	}
	if err := rootfs.Mount(c.bundle, c.rootfs); err != nil {
		return nil, fmt.Errorf("create container %s: %w", c.ID, err)
	}
	undo.later(func() {
		if err := c.unmount(); err != nil {
			c.log("container %s: undo its creation: %v", c.ID, err)
		}
	})
	event := &Event{Kind: ContainerCreated, Bundle: c.bundle, Rootfs: c.rootfs, Stdio: c.init.State().Stdio, Checkpoint: c.checkpoint}
	if c.checkpoint != "" {
		return event, nil
	}
	if err := c.launchInit(ctx, &undo, func(ctx context.Context, s driver.Streams) (int, error) {
		return c.runtime.Create(ctx, c.ID, s)
	}); err != nil {
		return nil, err
	}
	event.PID = c.init.State().PID
	return event, nil
}

// launchInit makes the init process by a call to the OCI runtime and takes
// hold of all that belongs to it.
func (c *Container) launchInit(ctx context.Context, undo *undoing, launch func(context.Context, driver.Streams) (int, error)) error {
	p := c.init
	streams, err := stdio.Open(ctx, p.State().Stdio, c.stdioOptions(c.handOver()))
	if err != nil {
		return fmt.Errorf("open standard IO of container %s: %w", c.ID, err)
	}
	undo.later(func() { streams.Close() })
	if err := p.useStreams(streams); err != nil {
		return err
	}
	// Until the pid is known and owned, no unknown child may be reaped.
	launched := child.Launching()
	defer launched()
	pid, err := launch(ctx, childStreams(streams))
	if !leftNothing(err) {
		undo.later(func() {
			if err := c.runtime.Delete(context.Background(), c.ID, true); err != nil {
				c.log("container %s: undo its creation: %v", c.ID, err)
				return
			}
			os.Remove(c.bundle.InitPidFile()) // which would name a stranger one day
		})
	}
	if err != nil {
		return err
	}
	if err := p.adopt(pid); err != nil {
		return err
	}
	group, err := cgroup.Load(pid)
	if err != nil {
		c.log("container %s: no statistics: %v", c.ID, err)
	} else {
		c.watchCgroup(group)
		undo.later(func() { c.dropCgroup() })
	}
	attach, cancel := context.WithTimeout(ctx, c.bounds().Console)
	defer cancel()
	if err := streams.Attach(attach); err != nil {
		return fmt.Errorf("attach standard IO of container %s: %w", c.ID, err)
	}
	return nil
}

// leftNothing tells whether a failed launch cannot have left anything with
// the OCI runtime, or has met a container that is not ours to remove.
func leftNothing(err error) bool {
	return err != nil && (driver.NotRun(err) || strings.Contains(err.Error(), "already exists"))
}

func (c *Container) watchCgroup(group *cgroup.Group) {
	c.mu.Lock()
	c.cgroup = group
	c.mu.Unlock()
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

func (c *Container) dropCgroup() {
	c.mu.Lock()
	group := c.cgroup
	c.cgroup = nil
	c.mu.Unlock()
	if group != nil {
		group.Close()
	}
}

func (c *Container) unmount() error {
	if len(c.rootfs) == 0 {
		return nil
	}
	return rootfs.Unmount(c.bundle.Rootfs())
}

func (c *Container) stdioOptions(direct bool) stdio.Options {
	return stdio.Options{
		Direct:      direct && !driver.CanCheckpoint(),
		UID:         int(c.options.IOUID),
		GID:         int(c.options.IOGID),
		Dir:         string(c.bundle),
		ContainerID: c.ID,
		Namespace:   c.namespace,
		Log:         c.log,
	}
}

func childStreams(s *stdio.Streams) driver.Streams {
	if socket := s.ConsoleSocket(); socket != "" {
		return driver.Streams{ConsoleSocket: socket}
	}
	stdin, stdout, stderr := s.Child()
	return driver.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr}
}

// Start lets the init process run the container's program, or restores the
// container from its checkpoint.
func (c *Container) Start(ctx context.Context) error {
	return c.init.do(ctx, OpStart, nil, c.start)
}

func (c *Container) start(ctx context.Context) (*Event, error) {
	if c.checkpoint != "" {
		return c.restore(ctx)
	}
	if err := c.init.openStdin(); err != nil {
		return nil, err
	}
	if err := c.runtime.Start(ctx, c.ID); err != nil {
		return nil, err
	}
	return &Event{Kind: ContainerStarted, PID: c.init.State().PID}, nil
}

// errGivenUp is why a creation ends that somebody deletes meanwhile: it is the
// client's way to take back a create whose answer it does not want any more.
var errGivenUp = fmt.Errorf("deleted while it was being created: %w", errdefs.ErrUnavailable)

// Delete removes a container that has ended or was never started. Asked again
// after a failure it goes on where it stopped. A creation that is under way is
// given up; then nothing is left, and the container not found.
func (c *Container) Delete(ctx context.Context) error {
	c.mu.Lock()
	if current := c.init.call; current != nil && current.op.creates() {
		current.abort(errGivenUp)
	}
	c.mu.Unlock()
	return c.init.do(ctx, OpDelete, nil, c.delete)
}

func (c *Container) delete(ctx context.Context) (*Event, error) {
	p := c.init
	c.mu.Lock()
	owned, streams := p.child, p.streams
	c.mu.Unlock()
	if owned != nil {
		owned.Signal(killSignal) // created, not started; one that has ended does not mind
		if err := p.awaitEnd(ctx); err != nil {
			return nil, err
		}
	}
	if streams != nil {
		p.drain(ctx, streams)
	}
	if err := c.runtime.Delete(ctx, c.ID, false); err != nil {
		return nil, err
	}
	if err := c.unmount(); err != nil {
		return nil, fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	if err := c.removeCgroup(); err != nil {
		return nil, fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	c.dropCgroup()
	c.dropExecs()
	p.release()
	s := p.State()
	p.record(s.Exit, c.oomKilled(), true)
	return &Event{Kind: ProcessDeleted, PID: s.PID, Exit: s.Exit}, nil
}

// awaitEnd waits for the end of a process that was told to die.
func (p *Process) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.container.bounds().Killed)
	defer cancel()
	if _, err := p.Wait(ctx); err != nil {
		return fmt.Errorf("%s does not end after SIGKILL: %w", p.name(), errdefs.ErrUnavailable)
	}
	return nil
}

// drain gives output that is still on its way a bounded time, then ends the
// streams.
func (p *Process) drain(ctx context.Context, streams *stdio.Streams) {
	limit := p.container.bounds().Drain
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := streams.Drain(ctx); err != nil {
		p.container.log("%s: its output is still held open after %s, given up", p.name(), limit)
	}
	if err := streams.Close(); err != nil {
		p.container.log("%s: close standard IO: %v", p.name(), err)
	}
}

// dropExecs releases what the client has not deleted of execs, and those who
// still wait for one.
func (c *Container) dropExecs() {
	c.mu.Lock()
	execs := c.execs
	c.execs = map[string]*Process{}
	c.mu.Unlock()
	for _, p := range execs {
		c.mu.Lock()
		streams := p.streams
		c.mu.Unlock()
		if streams != nil {
			streams.Close()
		}
		p.release()
	}
}

func (c *Container) oomKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.oom
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

// PIDs of all processes in the container, with the ids of the execs that are
// known. The init process is listed until Delete, also when it has ended:
// containerd takes a task without processes for one that it has lost.
func (c *Container) PIDs() (map[int]string, error) {
	c.mu.Lock()
	group := c.cgroup
	known := map[int]string{}
	if pid := c.init.state.PID; pid != 0 {
		known[pid] = ""
	}
	for id, p := range c.execs {
		if p.state.State == Running {
			known[p.state.PID] = id
		}
	}
	c.mu.Unlock()
	if group == nil {
		return known, nil
	}
	pids, err := group.PIDs()
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

// Stats of the container's cgroup, as cgroups/v3 has them.
func (c *Container) Stats() (any, error) {
	c.mu.Lock()
	group := c.cgroup
	c.mu.Unlock()
	if group == nil {
		return nil, fmt.Errorf("statistics of container %s: it has no cgroup: %w", c.ID, errdefs.ErrNotFound)
	}
	stats, err := group.Stat()
	if err != nil {
		return nil, fmt.Errorf("statistics of container %s: %w", c.ID, err)
	}
	return stats, nil
}

// State of the container and its processes.
func (c *Container) State() ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ContainerState{
		ID: c.ID, Namespace: c.namespace, Bundle: c.bundle, Options: c.options,
		Annotations: c.annotations, OwnPIDNamespace: c.ownPIDNamespace, InitGone: c.initGone, OOM: c.oom,
		Init: c.init.fullState(),
	}
	if c.cgroup != nil {
		state := c.cgroup.State()
		s.Cgroup = &state
	}
	for _, p := range c.execs {
		s.Execs = append(s.Execs, p.fullState())
	}
	return s
}

// fullState includes that of the streams; the caller holds c.mu.
func (p *Process) fullState() ProcessState {
	s := p.state
	if p.streams != nil {
		streams := p.streams.State()
		s.Streams = &streams
	}
	return s
}

// tell publishes an event; the caller holds c.mu, which makes the order of
// events that of the states.
func (c *Container) tell(e Event) {
	e.Container = c.ID
	c.publish(e)
}

// undoing is a stack of steps that take back what was done.
type undoing []func()

func (u *undoing) later(step func()) { *u = append(*u, step) }

// unless is deferred by who does the steps: they are taken back if he fails, by
// an error or by a panic, which goes on.
func (u *undoing) unless(err *error) {
	panicked := recover()
	if panicked == nil && *err == nil {
		return
	}
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
	if panicked != nil {
		panic(panicked)
	}
}
