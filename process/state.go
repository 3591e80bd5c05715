package process

import (
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/process/stdio"
)

// Exit is how a process ended.
type Exit struct {
	// Status is the exit code, or 128 plus the number of the signal.
	Status int
	// Signal that ended it, or 0.
	Signal int       `json:",omitempty"`
	At     time.Time `json:",omitzero"`
}

// ProcessState is all that the shim must know of a process to go on with it.
// It is never changed once published.
type ProcessState struct {
	ExecID string `json:",omitempty"`
	State  State
	// PID as seen by the shim; 0 before there is one. It stays after the exit.
	PID   int
	Stdio stdio.Spec
	// Exit is set once State is Stopped.
	Exit Exit `json:",omitzero"`
	// Operation under way, or empty.
	Operation string       `json:",omitempty"`
	Streams   *stdio.State `json:",omitempty"`
}

// ContainerState is all that the shim must know of a container to go on with
// it.
type ContainerState struct {
	ID        string
	Namespace string
	Bundle    oci.Bundle
	Options   oci.Options
	// Annotations are those for the shim.
	Annotations     map[string]string `json:",omitempty"`
	OwnPIDNamespace bool
	// InitGone tells that the init process was reaped; its exit may still be
	// held back until those of the execs are told.
	InitGone bool
	// OOM tells that the OOM killer took a process of the container.
	OOM    bool
	Cgroup *cgroup.State `json:",omitempty"`
	Init   ProcessState
	Execs  []ProcessState `json:",omitempty"`
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
