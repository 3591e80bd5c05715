package process

import (
	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/process/stdio"
)

// EventKind names what happened.
type EventKind uint8

const (
	ContainerCreated EventKind = iota
	ContainerStarted
	ExecAdded
	ExecStarted
	Exited
	ProcessDeleted
	OutOfMemory
	ContainerPaused
	ContainerResumed
	ContainerCheckpointed
)

// Event is something that happened to a container. They are given to
// Config.Publish in the order in which they happened.
type Event struct {
	Kind      EventKind
	Container string
	// Exec is the exec's id, or empty for the init process.
	Exec string
	PID  int
	// Exit is set in Exited and ProcessDeleted.
	Exit Exit
	// Bundle, Rootfs, Stdio and Checkpoint are set in ContainerCreated,
	// Checkpoint also in ContainerCheckpointed.
	Bundle     oci.Bundle
	Rootfs     []oci.Mount
	Stdio      stdio.Spec
	Checkpoint string
}
