package process

// The events and log lines of a test's container, each event held against what
// must be so in that moment, and all of them against their order.

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// kinds are the names of events in these tests.
var kinds = map[EventKind]string{
	ContainerCreated: "create", ContainerStarted: "start", ExecAdded: "exec-added", ExecStarted: "exec-started", Exited: "exit",
	ProcessDeleted: "delete", OutOfMemory: "oom", ContainerPaused: "paused", ContainerResumed: "resumed", ContainerCheckpointed: "checkpointed",
}

// record keeps a container's events and log lines. It holds every event against
// what must be so at that moment.
type record struct {
	t   testing.TB
	box *box

	mu     sync.Mutex
	events []Event
	lines  []string
}

// publish is called with the container's lock held.
func (r *record) publish(e Event) {
	if e.Kind == Exited {
		r.recordedFirst(e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Container != r.box.ID {
		r.t.Errorf("event %s is of container %q, not %q", kinds[e.Kind], e.Container, r.box.ID)
	}
	r.events = append(r.events, e)
}

// recordedFirst holds an exit against rule 5: persist, enqueue, release. Without
// it a client asks for the status before there is one, and a shim that dies in
// between has lost it.
func (r *record) recordedFirst(e Event) {
	p := r.box.Container.init
	if e.Exec != "" {
		p = r.box.Container.execs[e.Exec]
	} else if _, err := os.Stat(string(r.box.bundle)); err != nil {
		return // nowhere to record it
	} else if exit, err := r.box.bundle.ReadExit(); err != nil || exit.Pid != e.PID || exit.Status != e.Exit.Status || !exit.Timestamp.Equal(e.Exit.At) {
		r.t.Errorf("exit %+v is told, recorded is %+v, %v", e, exit, err)
	}
	if p == nil {
		return // deleted with its container
	}
	select {
	case <-p.exited:
		r.t.Errorf("those who wait for %s were released before its exit was told", p.name())
	default:
	}
	if s := p.State(); s.State != Stopped || s.Exit != e.Exit {
		r.t.Errorf("the exit of %s is told in state %+v", p.name(), s)
	}
}

func (r *record) log(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *record) said(part string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.lines, func(line string) bool { return strings.Contains(line, part) })
}

// list has one word for each event: its kind, and the exec's id after a slash.
func (r *record) list() (words []string) {
	for _, e := range r.all() {
		word := kinds[e.Kind]
		if e.Exec != "" {
			word += "/" + e.Exec
		}
		words = append(words, word)
	}
	return words
}

func (r *record) all() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// expect holds the events against those wanted, and against the order that
// clients rely on.
func (b *box) expect(want ...string) {
	b.t.Helper()
	if got := b.told.list(); !slices.Equal(got, want) {
		b.t.Errorf("events %q, want %q; log %q", got, want, b.told.lines)
	}
	b.inOrder()
}

// inOrder holds the events against containerd's documentation of runtime v2
// and its #10589.
func (b *box) inOrder() {
	b.t.Helper()
	list := b.told.list()
	at := map[string]int{}
	for i, word := range list {
		if _, twice := at[word]; twice && word != "oom" {
			b.t.Errorf("%q is told twice in %q", word, list)
		}
		at[word] = i
	}
	before := func(first, second string) {
		b.t.Helper()
		i, one := at[first]
		j, two := at[second]
		if two && (!one || i > j) {
			b.t.Errorf("%q is told before %q in %q", second, first, list)
		}
	}
	for _, word := range list {
		kind, exec, isExec := strings.Cut(word, "/")
		if !isExec {
			before("create", word)
			continue
		}
		before("exec-added/"+exec, word)
		if kind == "exit" {
			before("exec-started/"+exec, word)
			before(word, "exit") // init's exit is the last one
		}
		if _, started := at["exec-started/"+exec]; started {
			before("exit/"+exec, "delete/"+exec)
		}
	}
	before("start", "paused")
	before("exit", "delete")
	if i, ok := at["delete"]; ok && i != len(list)-1 {
		b.t.Errorf("events after the container's delete in %q", list)
	}
}
