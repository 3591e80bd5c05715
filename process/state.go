package process

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/oci/handover"
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

// ProcessRecord is all that there is to know of a process: its state, and what
// only the shim needs to go on.
type ProcessRecord struct {
	ProcessState
	// Spec of an exec that was not started. It holds what must not be told, so it
	// is only there to be handed over.
	Spec json.RawMessage `json:",omitempty"`
	// StdinClosed, Width and Height are what was asked for before there were
	// streams.
	StdinClosed   bool   `json:",omitempty"`
	Width, Height uint16 `json:",omitempty"`
	// Killed tells that it was sent SIGKILL, Launched that its creation or start
	// is told.
	Killed   bool `json:",omitempty"`
	Launched bool `json:",omitempty"`
	// Owned tells that there is, or was, a process. Pidfd is the name of the file
	// that stands for it, until its end is told.
	Owned bool   `json:",omitempty"`
	Pidfd string `json:",omitempty"`
	// Reaped is how it ended, from when that was known; Told that those who wait
	// for the end have it, or that there will be none.
	Reaped Exit `json:",omitzero"`
	Told   bool `json:",omitempty"`
	// IO are the streams, where they are handed over.
	IO *stdio.Record `json:",omitempty"`
}

// ContainerState is all that the shim must know of a container to go on with
// it.
type ContainerState struct {
	ID        string
	Namespace string
	Bundle    oci.Bundle
	Options   oci.Options
	Rootfs    []oci.Mount `json:",omitempty"`
	// Checkpoint that the container is, or was, restored from.
	Checkpoint  string `json:",omitempty"`
	Limits      Limits
	CgroupsPath string `json:",omitempty"`
	// Output, Logs and Allowed are what Config had.
	Output  string     `json:",omitempty"`
	Logs    stdio.Logs `json:",omitzero"`
	Allowed []string   `json:",omitempty"`
	// Annotations are those for the shim.
	Annotations     map[string]string `json:",omitempty"`
	OwnPIDNamespace bool
	// InitGone tells that the init process was reaped; its exit may still be
	// held back until those of the execs are told.
	InitGone bool
	// OOM tells that the OOM killer took a process of the container.
	OOM    bool
	Cgroup *cgroup.State `json:",omitempty"`
	Init   ProcessRecord
	Execs  []ProcessRecord `json:",omitempty"`
}

// State of the container and its processes, to look at.
func (c *Container) State() ContainerState { return c.Handover("", nil) }

// Handover is State with all that another program needs to go on with the
// container, which is held up. The names of its files begin with name.
func (c *Container) Handover(name string, files *handover.Files) ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ContainerState{
		ID: c.ID, Namespace: c.namespace, Bundle: c.bundle, Options: c.options,
		Rootfs: c.rootfs, Checkpoint: c.checkpoint, Limits: c.limits, CgroupsPath: c.cgroupsPath, Output: c.output, Logs: stdio.Logs(c.logs), Allowed: c.allowed,
		Annotations: c.annotations, OwnPIDNamespace: c.ownPIDNamespace, InitGone: c.initGone, OOM: c.oom,
		Init: c.init.handover(name, files),
	}
	if c.cgroup != nil {
		state := c.cgroup.Handover(name, files)
		s.Cgroup = &state
	}
	for _, id := range slices.Sorted(maps.Keys(c.execs)) {
		s.Execs = append(s.Execs, c.execs[id].handover(name+"/"+id, files))
	}
	return s
}

// handover is the record of the process; the caller holds c.mu.
func (p *Process) handover(name string, files *handover.Files) ProcessRecord {
	r := ProcessRecord{
		ProcessState: p.state,
		StdinClosed:  p.stdinClosed, Width: p.width, Height: p.height,
		Killed: p.killed, Launched: p.launched, Owned: p.child != nil, Reaped: p.reaped,
	}
	select {
	case <-p.exited:
		r.Told = true
	default:
	}
	if files != nil && p.spec != nil {
		r.Spec, _ = json.Marshal(p.spec) // it was JSON
	}
	if p.child != nil && !r.Told {
		if here, ok := p.child.(*child.Child); ok {
			r.Pidfd = files.Add(name+"/pidfd", here.Pidfd())
		}
	}
	if p.streams != nil {
		streams := p.streams.State()
		r.Streams = &streams
		if files != nil {
			record := p.streams.Handover(name+"/io", files)
			r.IO = &record
		}
	}
	return r
}
