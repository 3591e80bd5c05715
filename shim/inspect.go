package shim

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/cleatrun/cleat/shim/version"
)

// controls are the RPCs of the package control. Of what is here none waits: no
// lock that is taken is held by anybody over a call to the OCI runtime.
func (s *shim) controls() map[string]ttrpcserver.Handler {
	return map[string]ttrpcserver.Handler{
		control.MethodInfo:    answer(func() any { return s.info() }),
		control.MethodInspect: answer(func() any { return s.inspect() }),
		control.MethodDump:    answer(func() any { return s.dump() }),
		control.MethodUpgrade: s.upgradeCall,
		control.MethodTry:     s.tryCall,
	}
}

// answer makes a handler of a function that is asked nothing.
func answer(f func() any) ttrpcserver.Handler {
	return func(context.Context, []byte) ([]byte, error) { return control.Encode(f()) }
}

func (s *shim) info() control.Info {
	release, revision := version.Get()
	info := control.Info{
		Release: release, Revision: revision,
		PID:       os.Getpid(),
		Namespace: s.daemon.Namespace, ID: s.daemon.ID,
		StateVersion: upgrade.Ours().Version,
		Started:      s.started, Running: s.running, Upgrades: s.upgrades,
	}
	for _, c := range s.tasks.containers.all() {
		if c.Init().State().State != process.Absent {
			info.Containers++
			info.Execs += c.Execs()
		}
	}
	return info
}

func (s *shim) inspect() control.Inspection {
	i := control.Inspection{Info: s.info(), State: s.state(nil)}
	for _, r := range s.server.Open() {
		i.Requests = append(i.Requests, control.Request{
			Connection: r.Connection, Stream: r.Stream, Service: r.Service, Method: r.Method,
			Age: r.Age, Answered: r.Answered, Abandoned: r.Dropped,
		})
	}
	calls, total := driver.Calls()
	for _, c := range calls {
		i.Calls = append(i.Calls, control.Call{Operation: c.Operation, Container: c.Container, Age: time.Since(c.Began)})
	}
	i.Counters.Calls = total
	i.Counters.Connections, i.Counters.Requests = s.server.Counters()
	i.Counters.EventsTaken, i.Counters.EventsPending = s.tasks.events.Counters()
	i.Counters.Goroutines = runtime.NumGoroutine()
	var m runtime.MemStats
	runtime.ReadMemStats(&m) // for inspection only: it stops everything for a moment
	i.Counters.Heap = m.HeapSys - m.HeapReleased
	i.Counters.HeapLive, i.Counters.HeapObjects = m.HeapAlloc, m.HeapObjects
	return i
}

// state is the tree, as it is now. What containers and requests hold that must
// not be told is not in it; nor is it with files that are copies.
func (s *shim) state(files *handover.Files) upgrade.State {
	release, _ := version.Get()
	d := s.daemon
	state := upgrade.State{
		Versions: upgrade.Written(),
		Release:  release,
		Started:  s.started,
		Upgrades: s.upgrades,
		Daemon: upgrade.Daemon{
			Namespace: d.Namespace, ID: d.ID, Address: d.Address, TTRPCAddress: d.TTRPCAddress,
			Bundle: d.Bundle, InvokedAs: d.InvokedAs, Said: d.Said, Debug: d.Debug, SocketPath: d.SocketPath,
		},
		Containers: s.tasks.containers.state(files),
		Listener:   files.Add("listener", s.listener),
		Server:     s.server.State(files),
	}
	if files != nil {
		state.Lingering = stdio.HandoverLingering(files)
	}
	state.Events = s.queue.State(files)
	state.RaiseFloor()
	return state
}

func (s *shim) dump() control.Dump {
	return control.Dump{Stacks: string(stacks(1 << 20)), Operations: s.tasks.history.list()}
}

// leaveDump writes it into the bundle for which the shim was started, for who
// gets no answer. The bundle may be gone.
func (s *shim) leaveDump() {
	text, err := json.Marshal(s.dump())
	if err == nil {
		err = oci.Bundle(s.daemon.Bundle).Replace(control.DumpFile, text)
	}
	if err != nil {
		s.log.Warn("write a dump: %v", err)
	}
}

// stacks of all goroutines, as far as they fit.
func stacks(most int) []byte {
	for size := min(64<<10, most); ; size = min(2*size, most) {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size == most {
			return buf[:n]
		}
	}
}

// history keeps the last operations that have ended.
type history struct {
	mu   sync.Mutex // guards what follows
	last []control.Operation
	next int // where the oldest is, once there are enough
}

const (
	// historySize is how many are kept.
	historySize = 64
	// maxErrorText bounds what is kept of the error of one.
	maxErrorText = 512
)

func (h *history) add(d process.Done) {
	o := control.Operation{Container: d.Container, Exec: d.Exec, Operation: d.Operation.String(), Began: d.Began, Took: d.Took}
	if d.Err != nil {
		text := d.Err.Error()
		o.Error = strings.Clone(text[:min(len(text), maxErrorText)])
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.last) < historySize {
		h.last = append(h.last, o)
		return
	}
	h.last[h.next] = o
	h.next = (h.next + 1) % historySize
}

// list returns them, the oldest first.
func (h *history) list() []control.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Concat(h.last[h.next:], h.last[:h.next])
}
