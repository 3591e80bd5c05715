package shim

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/containerd/errdefs"
)

// containers are those that this shim serves, and the answer to the question
// whether it is needed any more.
type containers struct {
	mu   sync.Mutex // guards what follows
	byID map[string]*process.Container
	// expected are containers whose `start` has found this shim and been told
	// that it stays; each until its Create, or until its time is over.
	expected map[string]*expectation
	// asked tells that Shutdown was asked for: the shim ends as soon as it is
	// not needed. ending is closed when it does; from then on nothing is let in.
	asked  bool
	ending chan struct{}
	// held tells that it must not end at this moment.
	held bool
	// connected tells whether anybody is there who may still want something.
	// limit is for how long there may be neither anybody nor a container; alone
	// is the timer for that, while there is no container.
	connected func() bool
	limit     time.Duration
	alone     *time.Timer
}

// expectation is one of a container.
type expectation struct {
	until time.Time
	timer *time.Timer
}

// newContainers expects the container id, for which the shim was started; it
// ends when there is no Create within limit.
func newContainers(id string, limit time.Duration) *containers {
	c := &containers{
		byID:     map[string]*process.Container{},
		expected: map[string]*expectation{},
		asked:    true,
		ending:   make(chan struct{}),
	}
	c.expect(id, limit)
	return c
}

// find returns a container that is created, or being created.
func (c *containers) find(id string) (*process.Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if container := c.byID[id]; container != nil {
		return container, nil
	}
	return nil, fmt.Errorf("container %s: not created: %w", id, errdefs.ErrNotFound)
}

// get returns a container that was created and not deleted.
func (c *containers) get(id string) (*process.Container, error) {
	container, err := c.find(id)
	if err == nil && container.Init().State().State == process.Absent {
		return nil, fmt.Errorf("container %s: not created yet: %w", id, errdefs.ErrNotFound)
	}
	return container, err
}

// claim returns the container of that id, a new one made by make if there is
// none yet.
func (c *containers) claim(id string, make func() *process.Container) (container *process.Container, fresh bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isEnding() {
		return nil, false, fmt.Errorf("container %s: the shim is about to end: %w", id, errdefs.ErrUnavailable)
	}
	c.forget(id)
	if container = c.byID[id]; container != nil {
		return container, false, nil
	}
	c.asked = false
	container = make()
	c.byID[id] = container
	return container, true, nil
}

// remove forgets a container that is deleted, or could not be created.
func (c *containers) remove(gone *process.Container) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byID[gone.ID] == gone {
		delete(c.byID, gone.ID)
	}
	c.endIfAsked()
	c.awaitOthers()
}

// watch begins to look whether anybody is connected when there is no container;
// the shim ends after limit without either.
func (c *containers) watch(connected func() bool, limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected, c.limit = connected, limit
	c.awaitOthers()
}

// awaitOthers gives somebody the time to come when there is no container any more.
// Whoever deletes the last one asks for the shim's end next, unless it dies in
// between.
func (c *containers) awaitOthers() {
	if c.connected != nil && c.alone == nil && len(c.byID) == 0 && !c.isEnding() {
		c.alone = time.AfterFunc(c.limit, c.endIfAlone)
	}
}

// endIfAlone ends the shim if it has neither a container nor anybody who is
// connected.
func (c *containers) endIfAlone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alone = nil
	if c.held || c.connected() {
		c.awaitOthers()
		return
	}
	c.asked = c.asked || len(c.byID) == 0
	c.endIfAsked()
}

// expect keeps the shim for a container that is about to join. It returns
// false when the shim is about to end.
func (c *containers) expect(id string, limit time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isEnding() {
		return false
	}
	c.forget(id)
	e := &expectation{until: time.Now().Add(limit)}
	e.timer = time.AfterFunc(limit, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.expected[id] != e {
			return // it has come, or is expected for longer, a moment ago
		}
		delete(c.expected, id)
		c.endIfAsked()
	})
	c.expected[id] = e
	return true
}

// forget that a container is expected.
func (c *containers) forget(id string) {
	if e := c.expected[id]; e != nil {
		e.timer.Stop()
		delete(c.expected, id)
	}
}

// shutdown ends the shim if it serves nobody. It is asked on behalf of the
// container id, which is not to come any more.
func (c *containers) shutdown(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(id)
	// Asked while containers are here, it is about one of them that is gone;
	// the last one's client asks again.
	c.asked = len(c.byID) == 0
	c.endIfAsked()
}

// terminate ends the shim if it serves nobody, whoever is expected: the host is
// being shut down, and nobody may be waited for. It returns how many are served.
func (c *containers) terminate() (served int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if served = len(c.byID); served > 0 {
		return served
	}
	for id := range c.expected {
		c.forget(id)
	}
	c.asked = true
	c.endIfAsked()
	return 0
}

func (c *containers) endIfAsked() {
	if c.asked && !c.held && len(c.byID) == 0 && len(c.expected) == 0 && !c.isEnding() {
		close(c.ending)
	}
}

func (c *containers) isEnding() bool {
	select {
	case <-c.ending:
		return true
	default:
		return false
	}
}

// count tells how many there are.
func (c *containers) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// all returns the containers in no order.
func (c *containers) all() []*process.Container {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*process.Container, 0, len(c.byID))
	for _, container := range c.byID {
		all = append(all, container)
	}
	return all
}

// state of all, with their files. Of one that is being created there is none
// yet.
func (c *containers) state(files *handover.Files) upgrade.Containers {
	var s upgrade.Containers
	for _, container := range c.all() {
		if container.Init().State().State != process.Absent || files == nil {
			s.Served = append(s.Served, container.Handover("container/"+container.ID, files))
		}
	}
	slices.SortFunc(s.Served, func(a, b process.ContainerState) int { return strings.Compare(a.ID, b.ID) })
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Asked = c.asked
	for id, e := range c.expected {
		if s.Expected == nil {
			s.Expected = map[string]time.Time{}
		}
		s.Expected[id] = e.until
	}
	return s
}

// hold keeps the shim from ending before goOn. It fails when that has begun.
func (c *containers) hold() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isEnding() {
		return fmt.Errorf("the shim is about to end: %w", errdefs.ErrUnavailable)
	}
	c.held = true
	return nil
}

// goOn undoes hold.
func (c *containers) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	c.endIfAsked()
}

// restoreContainers makes those of a state; restore makes one. They are held.
func restoreContainers(s upgrade.Containers, restore func(process.ContainerState) (*process.Container, error)) (*containers, error) {
	c := &containers{byID: map[string]*process.Container{}, expected: map[string]*expectation{}, asked: s.Asked, held: true, ending: make(chan struct{})}
	for _, served := range s.Served {
		container, err := restore(served)
		if err != nil {
			return nil, err
		}
		c.byID[served.ID] = container
	}
	for id, until := range s.Expected {
		c.expect(id, time.Until(until))
	}
	return c, nil
}
