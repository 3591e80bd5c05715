// Package upgrade replaces the program of a running shim by another one: same
// process, same children, same connections, nobody has to know.
//
// The shim writes all it knows into a State, runs the new program by execve(2),
// and that one goes on from there. Before that, the new program is tried out: as
// a child it is handed a copy of everything and has to restore it (Program.Try).
// What it cannot do, or does not come back from, so happens to the child.
//
// This file is the state, versions.go who can read which, program.go the file
// that is to be run, try.go and run.go do so; the package arrival has the first
// steps and the way back of the new program. What is stopped and restored in
// which order is package shim's.
package upgrade

import (
	"time"

	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
)

// State is all that a shim must know to go on as another program. It is plain
// data; files are named in it.
type State struct {
	Versions
	// Release of the program that has written it.
	Release string `json:",omitempty"`
	// Started is when the process was started, Upgrades how often its program
	// was replaced since.
	Started  time.Time
	Upgrades int `json:",omitempty"`

	Daemon     Daemon
	Containers Containers
	Events     events.State
	// Lingering is output of deleted containers and execs that is not passed on
	// yet.
	Lingering []stdio.Record `json:",omitempty"`
	// Listener is the name of the listening socket.
	Listener string
	Server   ttrpcserver.State
}

// Daemon is what the process was told when it was started.
type Daemon struct {
	Namespace string
	// ID is the container for which the shim was started.
	ID string
	// Address is the path of containerd's gRPC socket, TTRPCAddress where events
	// go, empty when nobody wants any.
	Address      string
	TTRPCAddress string `json:",omitempty"`
	Bundle       string
	InvokedAs    string
	// Said is what was said to the start.
	Said       options.Said
	Debug      bool `json:",omitempty"`
	SocketPath string
}

// Containers are those that the shim serves.
type Containers struct {
	Served []process.ContainerState `json:",omitempty"`
	// Expected are containers whose `start` was told that the shim stays, with
	// when that promise ends.
	Expected map[string]time.Time `json:",omitempty"`
	// Asked tells that the shim is to end as soon as it serves nobody.
	Asked bool `json:",omitempty"`
}

// Times are when an upgrade came how far. Those that are zero it has not.
type Times struct {
	Asked   time.Time // the call has come
	Tried   time.Time // the new program has restored the state as a child
	Drained time.Time // no slow call runs any more
	Stopped time.Time // nothing is read, no call runs
	Held    time.Time // nothing moves in the containers
	Saved   time.Time // the state is written
	Arrived time.Time // the new program runs
	Begun   time.Time // its packages are initialised
	Built   time.Time // the state is restored
	Served  time.Time // everything moves again
}

// Pause is for how long calls had to wait.
func (t Times) Pause() time.Duration { return t.Served.Sub(t.Drained) }
