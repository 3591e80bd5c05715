package upgrade

import (
	"fmt"
	"strconv"
)

// The state has a version, which grows when something is added to it. A program
// that does not know what was added can go on without it, or it cannot: then
// its containers would be worse off than before, and the upgrade is refused. So
// whoever writes a state also tells the oldest version of a program to which it
// can be handed, and each program knows the oldest state that it can read.
//
// To change the state: add a field, raise stateVersion; if a program without it
// would lose something that was promised, set stateFloor to the new version; if old
// states cannot be read any more, set stateOldest. testdata has the fields of every
// version, shim's testdata a state of every one.
//
// What was added: 2, events in a file (events.State.Spilled); a state without any
// can be handed to version 1.
//
// They are strings for the linker, by which tests make a program of another
// version.
var (
	stateVersion = "2"
	stateFloor   = "1"
	stateOldest  = "1"
)

// Versions of a state, or of what a program reads and writes.
type Versions struct {
	// Version of the program's state.
	Version int
	// Floor is the oldest version of a program to which a state can be handed.
	Floor int
	// Oldest state that the program reads. It is not in states.
	Oldest int `json:",omitempty"`
}

// Ours are those of this program.
func Ours() Versions {
	return Versions{Version: number(stateVersion), Floor: number(stateFloor), Oldest: number(stateOldest)}
}

// Written are the versions of a state that this program writes.
func Written() Versions {
	v := Ours()
	v.Oldest = 0
	return v
}

// spilledSince is the first version that knows of events in a file.
const spilledSince = 2

// RaiseFloor makes the floor that of what is in the state, which is filled.
func (s *State) RaiseFloor() {
	if s.Events.Spilled != nil {
		s.Floor = max(s.Floor, spilledSince)
	}
}

// Readable returns nil if a program of these versions reads a state of those.
func (v Versions) Readable(state Versions) error {
	switch {
	case state.Version <= 0 || state.Floor <= 0 || state.Floor > state.Version:
		return fmt.Errorf("the state has no valid version (%d, floor %d)", state.Version, state.Floor)
	case v.Version < state.Floor:
		return fmt.Errorf("it knows the state up to version %d, and that of the running program, of version %d, can be handed to version %d and later", v.Version, state.Version, state.Floor)
	case state.Version < v.Oldest:
		return fmt.Errorf("it reads the state from version %d on, and that of the running program is of version %d", v.Oldest, state.Version)
	}
	return nil
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
