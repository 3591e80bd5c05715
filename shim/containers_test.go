package shim

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cleatrun/cleat/process"
	"github.com/containerd/errdefs"
)

const longAfter = time.Hour

// registry is a registry that has had its first container.
func registry(t *testing.T) *containers {
	t.Helper()
	c := newContainers("first", longAfter)
	c.remove(claimed(t, c, "first"))
	return c
}

func containerOf(id string) func() *process.Container {
	return func() *process.Container { return process.New(process.Config{ID: id}) }
}

func claimed(t *testing.T, c *containers, id string) *process.Container {
	t.Helper()
	container, fresh, err := c.claim(id, containerOf(id))
	if err != nil || !fresh {
		t.Fatalf("claim %s: fresh=%t, %v", id, fresh, err)
	}
	return container
}

func TestShimEndsWhenItIsNotNeeded(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, c *containers)
		ends bool
	}{
		{"nothing was asked", func(t *testing.T, c *containers) {}, false},
		{"Shutdown", func(t *testing.T, c *containers) { c.shutdown("x") }, true},
		{"Shutdown again", func(t *testing.T, c *containers) { c.shutdown("x"); c.shutdown("x") }, true},
		{"Shutdown with a container", func(t *testing.T, c *containers) {
			claimed(t, c, "a")
			c.shutdown("a")
		}, false},
		// It was about another one: the last one's client asks again.
		{"Shutdown with a container that is then deleted", func(t *testing.T, c *containers) {
			a := claimed(t, c, "a")
			c.shutdown("b")
			c.remove(a)
		}, false},
		{"Shutdown after the last container", func(t *testing.T, c *containers) {
			a, b := claimed(t, c, "a"), claimed(t, c, "b")
			c.remove(a)
			c.shutdown("a")
			c.remove(b)
			c.shutdown("b")
		}, true},
		{"Shutdown while another one is expected", func(t *testing.T, c *containers) {
			c.expect("b", longAfter)
			c.shutdown("a")
		}, false},
		{"Shutdown for the one that is expected", func(t *testing.T, c *containers) {
			c.expect("b", longAfter)
			c.shutdown("b")
		}, true},
		{"Shutdown, and the expected one does not come", func(t *testing.T, c *containers) {
			c.expect("b", time.Millisecond)
			c.shutdown("a")
		}, true},
		{"Shutdown, and the expected one comes", func(t *testing.T, c *containers) {
			c.expect("b", longAfter)
			c.shutdown("a")
			c.remove(claimed(t, c, "b"))
		}, false},
		{"the expected one does not come, and nothing was asked", func(t *testing.T, c *containers) {
			c.expect("b", time.Millisecond)
			eventually(t, "it is not expected any more", func() bool { return !c.expects("b") })
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := registry(t)
			c.do(t, r)
			if c.ends {
				receive(t, "the end", r.ending)
				return
			}
			if r.isEnding() {
				t.Error("the shim ends")
			}
			if !r.expect("c", longAfter) {
				t.Error("a shim that goes on lets nobody in")
			}
		})
	}
}

func (c *containers) expects(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.expected[id] != nil
}

// A service manager that ends everything does not wait two minutes for a
// container that will not come.
func TestSignalledShimWaitsForNobody(t *testing.T) {
	c := newContainers("a", longAfter)
	if n := c.terminate(); n != 0 {
		t.Errorf("it serves %d", n)
	}
	receive(t, "the end", c.ending)
	if _, _, err := c.claim("a", containerOf("a")); !errdefs.IsUnavailable(err) {
		t.Errorf("a container is let in: %v", err)
	}
	// One that serves somebody stays, and keeps its promise to the others.
	c = newContainers("a", longAfter)
	a := claimed(t, c, "a")
	c.expect("b", longAfter)
	if n := c.terminate(); n != 1 || c.isEnding() || !c.expects("b") {
		t.Errorf("it serves %d; ending is %t, b is expected %t", n, c.isEnding(), c.expects("b"))
	}
	// One that is held up ends afterwards.
	c.remove(a)
	must(t, "hold", c.hold())
	c.terminate()
	if c.isEnding() {
		t.Error("it ends while it is held")
	}
	c.goOn()
	receive(t, "the end", c.ending)
}

// A shim that was started for a container that never comes must not stay for
// ever: its containerd may have died in between.
func TestShimWhoseContainerNeverComesEnds(t *testing.T) {
	receive(t, "the end", newContainers("a", time.Millisecond).ending)
	// With its container it stays.
	c := newContainers("a", 20*time.Millisecond)
	claimed(t, c, "a")
	select {
	case <-c.ending:
		t.Error("the shim of a container ends")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestEndingShimLetsNobodyIn(t *testing.T) {
	c := registry(t)
	c.shutdown("first")
	if c.expect("a", longAfter) {
		t.Error("a container is expected")
	}
	if _, _, err := c.claim("a", containerOf("a")); !errdefs.IsUnavailable(err) {
		t.Errorf("a container is let in: %v", err)
	}
	if len(c.all()) != 0 {
		t.Errorf("there are %d containers", len(c.all()))
	}
}

// A container is there under its id until it has gone, and what comes after it
// under the same id is another one.
func TestContainersAreFoundByTheirIDs(t *testing.T) {
	c := registry(t)
	if _, err := c.find("a"); !errdefs.IsNotFound(err) {
		t.Errorf("found what was never there: %v", err)
	}
	first := claimed(t, c, "a")
	same, fresh, err := c.claim("a", func() *process.Container { t.Error("made twice"); return nil })
	if same != first || fresh || err != nil {
		t.Errorf("claimed again: %p and %p, fresh=%t, %v", first, same, fresh, err)
	}
	if found, err := c.find("a"); found != first || err != nil {
		t.Errorf("found %p, %v", found, err)
	}
	// It is not created yet.
	if _, err := c.get("a"); !errdefs.IsNotFound(err) {
		t.Errorf("got what is being created: %v", err)
	}
	c.remove(first)
	second := claimed(t, c, "a")
	c.remove(first) // late, and about the other one
	if found, err := c.find("a"); found != second || err != nil {
		t.Errorf("found %p, %v, want %p", found, err, second)
	}
}

// An expectation that is renewed in the moment when it ends is renewed: the
// `start` that did so was told that the shim stays.
func TestExpectationThatIsRenewedLasts(t *testing.T) {
	for range 300 {
		c := registry(t)
		c.expect("a", 0)
		if !c.expect("a", longAfter) {
			t.Fatal("the shim ends")
		}
		c.shutdown("b")
		// Timers that have fired by now have been heard when later ones are.
		later := make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(later) })
		<-later
		if !c.expects("a") || c.isEnding() {
			t.Fatalf("the container is expected: %t, the shim ends: %t", c.expects("a"), c.isEnding())
		}
	}
}

// Whatever comes together: who is let in is served, and the shim ends once and
// with nobody inside.
func TestNobodyIsInsideWhenTheShimEnds(t *testing.T) {
	for seed := range uint64(30) {
		c := newContainers("0", longAfter)
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(worker)))
				for range 40 {
					id := fmt.Sprint(random.IntN(6))
					switch random.IntN(5) {
					case 0:
						c.expect(id, time.Duration(random.IntN(2000)))
					case 1:
						c.shutdown(id)
					default:
						container, _, err := c.claim(id, containerOf(id))
						if err != nil {
							if !c.isEnding() {
								t.Errorf("not let in although the shim goes on: %v", err)
							}
							continue
						}
						c.find(id)
						c.all()
						c.remove(container)
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() {
			<-c.ending
			if inside := c.all(); len(inside) != 0 {
				t.Errorf("the shim ends with %d containers", len(inside))
			}
			close(ended)
		}()
		all.Wait()
		for id := range 6 {
			c.shutdown(fmt.Sprint(id))
		}
		receive(t, "the end", ended)
	}
}

// containerd may die between the Delete of the last container and the Shutdown,
// and not come back. Stock stays for ever.
func TestShimThatIsAloneEnds(t *testing.T) {
	alone := func(limit time.Duration, connected func() bool) *containers {
		c := newContainers("first", longAfter)
		c.watch(connected, limit)
		return c
	}
	nobody, somebody := func() bool { return false }, func() bool { return true }

	c := alone(20*time.Millisecond, nobody)
	first := claimed(t, c, "first")
	<-time.After(50 * time.Millisecond)
	if c.isEnding() {
		t.Fatal("a shim with a container ends")
	}
	c.remove(first)
	receive(t, "the end", c.ending)

	// Who is connected may want something, until it goes.
	var there atomic.Bool
	there.Store(true)
	c = alone(time.Millisecond, there.Load)
	c.remove(claimed(t, c, "first"))
	<-time.After(50 * time.Millisecond)
	if c.isEnding() {
		t.Fatal("a shim ends under a client")
	}
	there.Store(false)
	receive(t, "the end", c.ending)

	// It keeps its promise to who joins.
	c = alone(time.Millisecond, nobody)
	a := claimed(t, c, "first")
	c.expect("b", longAfter)
	c.remove(a)
	<-time.After(50 * time.Millisecond)
	if c.isEnding() {
		t.Fatal("a shim ends that is joined")
	}
	b := claimed(t, c, "b")
	<-time.After(50 * time.Millisecond)
	if c.isEnding() {
		t.Fatal("a shim with a container ends")
	}
	c.remove(b)
	receive(t, "the end", c.ending)

	// Nor does it end while its program is replaced.
	c = alone(time.Millisecond, nobody)
	must(t, "hold", c.hold())
	c.remove(claimed(t, c, "first"))
	<-time.After(50 * time.Millisecond)
	if c.isEnding() {
		t.Fatal("a shim ends that is held")
	}
	c.goOn()
	receive(t, "the end", c.ending)

	c = alone(time.Millisecond, somebody)
	c.shutdown("first")
	receive(t, "the end", c.ending)
}
