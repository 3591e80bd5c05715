package process

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// State of a process, init or exec, in its life.
type State uint8

const (
	// Absent: not created yet. Nobody can ask for it but Create.
	Absent State = iota
	// Created: the init process waits for Start; an exec is added, not started.
	Created
	// Restorable: a container made of a checkpoint, of which nothing runs yet.
	Restorable
	Running
	Paused
	// Stopped: ended and reaped, or never came to run.
	Stopped
	// Deleted: nothing is left of it.
	Deleted
)

// Operation is what can be asked of a process or happens to it.
type Operation uint8

const (
	OpCreate Operation = iota
	// OpPrepare is a create from a checkpoint: nothing runs before Start.
	OpPrepare
	OpStart
	OpPause
	OpResume
	OpUpdate
	OpCheckpoint
	// OpAddExec and OpStartExec are asked of the init process on behalf of an
	// exec.
	OpAddExec
	OpStartExec
	OpKill
	OpResize
	OpDelete
	// OpExit is no request: the process has ended.
	OpExit
)

// cell is one answer of the table: the next state, or a refusal.
type cell struct {
	next    State
	refusal error
}

func to(s State) cell { return cell{next: s} }

// no: wrong moment. gone: there is no such process (any more).
var (
	no   = cell{refusal: errdefs.ErrFailedPrecondition}
	gone = cell{refusal: errdefs.ErrNotFound}
	have = cell{refusal: errdefs.ErrAlreadyExists}
)

type row [OpExit + 1]cell

// initLife and execLife are the whole of what is allowed when. An operation
// that leaves the state as it is names that state.
var initLife = [...]row{
	//          create         prepare         start        pause       resume       update          checkpoint      add exec        start exec      kill            resize          delete       exit
	Absent:     {to(Created), to(Restorable), gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
	Created:    {have, have, to(Running), no, no, to(Created), no, to(Created), to(Created), to(Created), to(Created), to(Deleted), to(Stopped)},
	Restorable: {have, have, to(Running), no, no, no, no, no, no, no, to(Restorable), to(Deleted), to(Stopped)},
	Running:    {have, have, no, to(Paused), no, to(Running), to(Running), to(Running), to(Running), to(Running), to(Running), no, to(Stopped)},
	Paused:     {have, have, no, no, to(Running), to(Paused), to(Paused), no, no, to(Paused), to(Paused), no, to(Stopped)},
	Stopped:    {have, have, no, no, no, no, no, no, no, gone, no, to(Deleted), no},
	Deleted:    {gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
}

var execLife = [...]row{
	//          create         prepare         start        pause resume update checkpoint add   start kill         resize       delete       exit
	Absent:     {to(Created), gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
	Created:    {have, have, to(Running), no, no, no, no, no, no, no, to(Created), to(Deleted), to(Stopped)},
	Restorable: {gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
	Running:    {have, have, no, no, no, no, no, no, no, to(Running), to(Running), no, to(Stopped)},
	Paused:     {gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
	Stopped:    {have, have, no, no, no, no, no, no, no, gone, no, to(Deleted), no},
	Deleted:    {gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone, gone},
}

// Next looks an operation up: the state that it leads to, or a refusal whose
// class is one of errdefs'. exec picks the table of execs.
func Next(exec bool, s State, op Operation) (State, error) {
	life := initLife[:]
	if exec {
		life = execLife[:]
	}
	c := life[s][op]
	switch c.refusal {
	case nil:
		return c.next, nil
	case errdefs.ErrNotFound:
		if op == OpKill && s == Stopped {
			return s, fmt.Errorf("process already finished: %w", c.refusal)
		}
		return s, c.refusal
	}
	return s, fmt.Errorf("cannot %s a process that is %s: %w", op, s, c.refusal)
}

func (s State) String() string {
	return [...]string{"absent", "created", "restorable", "running", "paused", "stopped", "deleted"}[s]
}

func (op Operation) String() string {
	return [...]string{"create", "prepare a restore of", "start", "pause", "resume", "update", "checkpoint", "add an exec to", "start an exec in", "kill", "resize", "delete", "end"}[op]
}

// launches tells whether the operation brings a process about whose exit must
// wait until the operation's own event is told.
func (op Operation) launches() bool { return op == OpCreate || op == OpStart }

// creates tells whether the container is not there before the operation.
func (op Operation) creates() bool { return op == OpCreate || op == OpPrepare }

// outlives tells whether what the operation has done stands when the process has
// ended by then: a checkpoint may be what has ended it.
func (op Operation) outlives() bool { return op == OpCheckpoint || op == OpUpdate }

// joins tells whether callers who ask again while the operation is under way
// share its answer. Updates and checkpoints carry data and are done each.
func (op Operation) joins() bool { return op != OpUpdate && op != OpCheckpoint }
