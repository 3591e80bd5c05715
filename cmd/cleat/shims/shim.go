// Package shims finds the shims of this host and asks them, for an operator. It
// needs no containerd: what it knows comes from /proc, from the sockets on which
// shims listen, and from the control service of those that are ours. It changes
// nothing.
//
// This file says what a shim is. host.go finds them all, process.go is what
// /proc tells, program.go looks at programs, ask.go asks, contents.go tells which
// containers a shim serves, match.go finds the one that an operator means.
package shims

import (
	"fmt"
	"time"

	"github.com/cleatrun/cleat/shim/control"
)

// Kind is whose shim it is.
type Kind string

const (
	// Cleat is ours, under whatever name it runs.
	Cleat Kind = "cleat"
	// Stock is containerd's own.
	Stock Kind = "stock"
	// Other is somebody else's.
	Other Kind = "other"
)

// Shim is one process that serves containers. It is a snapshot: Host makes it,
// and nothing changes it afterwards.
type Shim struct {
	Kind      Kind
	Namespace string
	// ID is the container for which the shim was started: of a pod, as a rule, its
	// sandbox. Other kinds may not tell one.
	ID string
	// PID as seen from here; 0 when it is not to be seen.
	PID int
	// Socket is where it listens, as the shim knows it; empty when that is not to
	// be seen.
	Socket  string
	Process Process
	Program Program
	// Info is what it has answered; nil for those that were not asked, and for
	// those that have not answered. Silent is why not.
	Info   *control.Info `json:",omitempty"`
	Silent string        `json:",omitempty"`
	// Err is the reason for Silent.
	Err      error `json:"-"`
	programs *programs
}

// Name is how an operator is told of it.
func (s *Shim) Name() string {
	if s.ID == "" {
		return fmt.Sprintf("%s/process %d", s.Namespace, s.PID)
	}
	return s.Namespace + "/" + s.ID
}

// Make says whose shim it is, for a sentence.
func (s *Shim) Make() string {
	switch s.Kind {
	case Cleat:
		return "a shim of cleat"
	case Stock:
		return "containerd's own shim"
	default:
		return "a shim of another make"
	}
}

// Release of the program that runs, as far as it is known.
func (s *Shim) Release() string {
	if s.Info == nil {
		return ""
	}
	return s.Info.Release
}

// Started is when the process was started; zero when it is not known.
func (s *Shim) Started() time.Time {
	if s.Info != nil {
		return s.Info.Started
	}
	return s.Process.Started
}
