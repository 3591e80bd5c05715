// Package control is the contract of the service by which an operator, or the
// tool cleat, looks into a running shim and replaces its program. The service
// is on the shim's own socket beside containerd's, so it is for the shim's user
// alone.
//
// Its full name is Service. Every request and every answer is a
// google.protobuf.BytesValue that holds JSON of the types here, so that any
// ttrpc client can ask it, and the daemon needs no message types of its own. An
// empty request is one with nothing set.
//
// This package holds names and types, which only grow: a field keeps its name
// and meaning. package client asks; who answers is package shim.
package control

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/cleatrun/cleat/oci/wire"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/containerd/errdefs"
)

// Service is the ttrpc service's full name.
const Service = "cleat.control.v1.Control"

// The methods. All but Upgrade and Try answer at once, whatever the OCI runtime
// is doing.
const (
	// MethodInfo takes nothing and answers Info.
	MethodInfo = "Info"
	// MethodInspect takes nothing and answers Inspection.
	MethodInspect = "Inspect"
	// MethodDump takes nothing and answers Dump.
	MethodDump = "Dump"
	// MethodUpgrade takes Upgrade and answers Upgraded. It is the new program
	// that answers. Errors say why the old one goes on.
	MethodUpgrade = "Upgrade"
	// MethodTry takes Upgrade and answers Tried: the program is looked at and tried
	// out as for an upgrade, and then left. Nothing is stopped. Errors say why there
	// would be no upgrade.
	MethodTry = "Try"
)

// DumpFile is the file in the bundle for which a shim was started into which it
// writes a Dump, as JSON, when it gets SIGUSR1 or SIGQUIT: for when it does not
// answer. Who reads it removes it.
const DumpFile = "dump.json"

// Upgrade asks the shim to go on as another program.
type Upgrade struct {
	// Path of the program, absolute.
	Path string
	// Patience is how long calls of the OCI runtime that are under way may take
	// to end, nanoseconds in JSON; 0 means 10 seconds. Such calls that come
	// meanwhile wait.
	Patience time.Duration `json:",omitempty"`
}

// Upgraded is how that went.
type Upgraded struct {
	// From and To are the releases of both programs.
	From, To string
	// Pause is how long calls that are answered at once had to wait, Times where
	// that time, and the rest, went.
	Pause time.Duration
	Times upgrade.Times
}

// Tried is how the trial of a program went.
type Tried struct {
	// From and To are the releases of both programs.
	From, To string
	Took     time.Duration
}

// Info tells who the shim is.
type Info struct {
	// Release and Revision of the program that runs, empty where it was built
	// without.
	Release, Revision string
	PID               int
	Namespace         string
	// ID is the container for which the shim was started: of a pod, as a rule,
	// its sandbox.
	ID string
	// StateVersion is that of the state which an upgrade hands over.
	StateVersion int
	// Containers and Execs that are served.
	Containers, Execs int
	// Started is when the process was started, Running when this program took
	// it over. They differ after an upgrade.
	Started, Running time.Time
	// Upgrades is how often the program was replaced since Started.
	Upgrades int
}

// Inspection is all that the shim knows at one moment.
type Inspection struct {
	Info Info
	// State is what an upgrade would hand over.
	State upgrade.State
	// Requests have not been answered, oldest first.
	Requests []Request
	// Calls to the OCI runtime are under way.
	Calls []Call
	// Counters since Info.Running.
	Counters Counters
}

// Request is an RPC that has not been answered.
type Request struct {
	// Connection counts those that the shim has accepted, from 1.
	Connection uint64
	Stream     uint32
	Service    string
	Method     string
	Age        time.Duration // nanoseconds in JSON
	// Answered tells that the answer waits for the client to read.
	Answered bool `json:",omitempty"`
	// Abandoned tells that the client is gone and the work goes on.
	Abandoned bool `json:",omitempty"`
}

// Call is one run of the OCI runtime.
type Call struct {
	Operation string
	Container string
	Age       time.Duration
}

// Counters tell what the shim has done, and what waits.
type Counters struct {
	// Connections that were accepted, Requests that were answered.
	Connections, Requests uint64
	// Calls to the OCI runtime that were begun.
	Calls uint64
	// Events that containerd has taken, and those that wait for it.
	EventsTaken   uint64
	EventsPending int
	// Goroutines of the shim, and bytes of memory that they use: Go's heap
	// with what it holds in reserve.
	Goroutines int
	Heap       uint64
	// HeapLive is how many bytes of it are in objects, HeapObjects how many
	// these are. What is not collected yet is among them; it is collected once
	// after many operations, when the shim has had nothing to do for two seconds.
	HeapLive, HeapObjects uint64
}

// Dump is for whoever looks for the reason why something is stuck.
type Dump struct {
	// Stacks of all goroutines, in Go's form, cut off at 1 MiB.
	Stacks string
	// Operations are the last that ended, oldest first.
	Operations []Operation
}

// Operation is a change of a container or exec that has ended.
type Operation struct {
	Container string
	Exec      string `json:",omitempty"`
	Operation string
	Began     time.Time
	Took      time.Duration
	// Error is empty where it succeeded.
	Error string `json:",omitempty"`
}

// valueField is the only field of google.protobuf.BytesValue.
const valueField = 1

// Encode makes a google.protobuf.BytesValue of v's JSON; of nil, an empty one.
func Encode(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return wire.AppendSized(wire.AppendTag(nil, valueField, wire.BytesKind), text), nil
}

// Decode fills v with what Encode was given. An empty message leaves it alone.
func Decode(message []byte, v any) error {
	for f, err := range wire.Fields(message) {
		if err != nil {
			return invalid(err)
		}
		if f.Number != valueField || !f.IsMessage() {
			continue
		}
		var text []byte
		f.Bytes(&text)
		if err := json.Unmarshal(text, v); err != nil {
			return invalid(err)
		}
	}
	return nil
}

func invalid(err error) error {
	return fmt.Errorf("read control message: %w: %w", err, errdefs.ErrInvalidArgument)
}
