package process

import (
	"errors"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/stack"
)

// errInterrupted is the end of a wait that was interrupted: the process runs.
var errInterrupted = errors.New("the wait for the end of a process was interrupted")

// beginWatch sees to it that the end of a process that is not told to have ended
// is told; the caller holds container.mu.
func (p *Process) beginWatch() {
	p.watched = true
	p.container.watchers.Add(1)
	if exit := p.reaped; !exit.At.IsZero() {
		go p.tellEnd(exit)
		return
	}
	p.child.Await(p.watch)
}

// stopWatch undoes beginWatch, unless the end is being told; the caller holds
// container.mu. Either way container.watchers says when nothing moves any more.
func (p *Process) stopWatch() {
	if p.watched && p.reaped.At.IsZero() && p.child.Interrupt() {
		p.watched = false
		p.container.watchers.Done()
	}
}

// watch takes the end of the process, and tells it.
func (p *Process) watch(reaped child.Exit, err error) {
	stack.Take16K()
	c := p.container
	if errors.Is(err, errInterrupted) {
		p.watchEnds()
		return
	}
	if err != nil {
		// Not our child any more: that it ended is all that can be known.
		c.log("%s: exit status is lost: %v", p.name(), err)
		reaped = child.Exit{Status: 255, At: time.Now()}
	}
	exit := Exit{Status: reaped.Status, Signal: int(reaped.Signal), At: reaped.At}
	c.mu.Lock()
	p.reaped = exit
	c.mu.Unlock()
	p.tellEnd(exit)
}

// tellEnd comes to its end with the exit told, or when the container is held up:
// all that it knows is in the state, so it can be begun again.
func (p *Process) tellEnd(exit Exit) {
	p.ended(exit)
	p.watchEnds()
}

func (p *Process) watchEnds() {
	c := p.container
	c.mu.Lock()
	p.watched = false
	c.mu.Unlock()
	c.watchers.Done()
}

// ended tells the exit of a process in the order that clients rely on: after
// the event of its own start, the init process's after those of the execs;
// recorded first, then queued as an event, then released to those who wait.
func (p *Process) ended(exit Exit) {
	c := p.container
	told := p.afterLaunch()
	if !p.isExec() && !c.emptied(exit.At) {
		return // held up; it is asked again
	}
	if told {
		killed := c.checkOOM()
		if !p.isExec() {
			p.record(exit, killed, false)
			if !c.read(exit.At) {
				return // as above
			}
		}
	}

	c.mu.Lock()
	if after, err := p.next(OpExit); err == nil {
		p.state.State = after
	}
	if p.state.Exit.At.IsZero() {
		p.state.Exit = exit
	}
	p.publish()
	if told && c.init.state.State != Deleted {
		c.tell(Event{Kind: Exited, Exec: p.state.ExecID, PID: p.state.PID, Exit: exit})
	}
	p.release()
	streams := p.streams
	if p.isExec() {
		c.execGone()
	}
	c.mu.Unlock()

	if streams != nil {
		streams.Exited()
	}
	p.child.Close()
}

// record keeps the end of the init process in the bundle, where the delete
// action finds it when there is no shim any more.
func (p *Process) record(exit Exit, oom, deleted bool) {
	c := p.container
	err := c.bundle.WriteExit(oci.Exit{
		Timestamp: exit.At.UTC(), Pid: p.State().PID, Status: exit.Status, Signal: exit.Signal, OOM: oom, Deleted: deleted,
	})
	if err != nil {
		c.log("container %s: record its exit: %v", c.ID, err)
	}
}

// afterLaunch returns when no launch of this process is under way, and tells
// whether its event is told: of a failed launch no exit is told either.
func (p *Process) afterLaunch() (told bool) {
	c := p.container
	c.mu.Lock()
	defer c.mu.Unlock()
	if current := p.call; current != nil && current.op.launches() {
		c.mu.Unlock()
		<-current.settled
		c.mu.Lock()
	}
	return p.launched
}

// emptied returns true when the exits of all execs are told, false when the
// container is held up before that. The init process has ended at that time. Where the kernel does not kill the rest of the container with its
// init process, the shim does. The wait is bounded: a process that hangs in
// the kernel must not hide for ever that the container has ended.
func (c *Container) emptied(ended time.Time) bool {
	c.mu.Lock()
	c.initGone = true
	running := c.execsRunning > 0
	if running {
		c.execsGone = make(chan struct{})
	}
	gone, held := c.execsGone, c.held
	group := c.cgroup
	c.mu.Unlock()

	if !c.ownPIDNamespace && group != nil {
		if err := group.Kill(killSignal); err != nil {
			c.log("container %s: kill what its init process left: %v", c.ID, err)
		}
	}
	if !running {
		return true
	}
	hold := c.bounds().ExecHold
	limit := time.NewTimer(hold - time.Since(ended))
	defer limit.Stop()
	select {
	case <-gone:
	case <-held:
		return false
	case <-limit.C:
		c.log("container %s: its exit is told before those of its execs: they did not end within %s", c.ID, hold)
	}
	return true
}

const (
	// readFirst is what Config.ReadFirst is as a rule. A client that is there has
	// read all that is in a pipe within milliseconds.
	readFirst = time.Second
	// readStall is which part of that may pass without anything being read: then
	// nobody reads.
	readStall = 10
	// readGap is how often is looked: the kernel tells nobody.
	readGap = time.Millisecond
)

// read returns true when the client has read the output of the init process, which
// ended at that time, or nobody does; false when the container is held up before
// that. containerd's Go client closes its end of a task's streams, read or not,
// when it deletes the task that has ended (cio.Cancel; that of 1.6 in any case), so
// it must not learn of the end before.
func (c *Container) read(ended time.Time) bool {
	c.mu.Lock()
	streams, held := c.init.streams, c.held
	c.mu.Unlock()
	if streams == nil {
		return true
	}
	streams.Exited()
	left := streams.Unread()
	if left == 0 {
		return true
	}
	limit := time.NewTimer(c.readFirst - time.Since(ended))
	defer limit.Stop()
	stall := time.NewTimer(c.readFirst / readStall)
	defer stall.Stop()
	look := time.NewTicker(readGap)
	defer look.Stop()
	for left > 0 {
		select {
		case <-look.C:
		case <-held:
			return false
		case <-limit.C:
			return true
		case <-stall.C:
			return true
		}
		if now := streams.Unread(); now != left {
			left = now
			stall.Reset(c.readFirst / readStall)
		}
	}
	return true
}

// execGone counts an exec that has ended or did not come to run; the caller
// holds c.mu.
func (c *Container) execGone() {
	c.execsRunning--
	if c.execsRunning == 0 && c.execsGone != nil {
		close(c.execsGone)
		c.execsGone = nil
	}
}
