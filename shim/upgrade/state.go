// Package upgrade replaces the program of a running shim by another one: same
// process, same children, same connections, nobody has to know.
package upgrade

import (
	"time"

	"github.com/cleatrun/cleat/process"
)

// Version is that of the State this program writes.
const Version = 1

// State is all that a shim must know to go on as another program. It is plain
// data; files are named in it.
type State struct {
	// Version of the program's state that has written it.
	Version int
	// Release of the program that has written it.
	Release string `json:",omitempty"`
	// Started is when the process was started, Upgrades how often its program
	// was replaced since.
	Started  time.Time
	Upgrades int `json:",omitempty"`

	Daemon     Daemon
	Containers Containers
	Events     Events
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
	Debug        bool `json:",omitempty"`
	SocketPath   string
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

// Events are those that containerd has not taken, oldest first.
type Events struct {
	// Topics of them.
	Topics []string `json:",omitempty"`
}
