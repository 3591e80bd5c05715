package main

// The check of events: what was told of a container, against what must be told.

import (
	"fmt"

	"github.com/cleatrun/cleat/integration/daemon"
)

// story is what is known of a container besides its events.
type story struct {
	// Restarted: containerd was killed in this round, so the last event before
	// that may come twice, and a shim may still have events to hand over when
	// another one serves the container's next life.
	Restarted bool

	// Killed: the container's shim was, so a life may be cut short.
	Killed bool

	// Exits are the statuses that callers were given, by pid.
	Exits map[uint32]uint32
}

// one is a process as events tell of it.
type one struct {
	pid              uint32
	started, exited  bool
	added, deletedAt bool
}

// judge tells what is wrong with the events of a container. A container is created
// as often as it takes; each life begins with that.
//
//	create < start < exit < delete, each at most once, and exit and delete always
//	exec added < started < exit < deleted, the exit exactly if there was a start
//	the exits of execs before init's; nothing after delete but a create
//	the same pid in all, and the statuses that callers were given
func judge(told []daemon.Event, s story) (wrong []violation) {
	bad := func(c category, format string, args ...any) {
		wrong = append(wrong, violation{Category: c, Text: fmt.Sprintf(format, args...)})
	}
	var init *one
	execs := map[string]*one{}
	over := func() { // a life is over, or nothing more will come of it
		if init == nil || s.Killed {
			return
		}
		if !init.exited {
			bad(exitLost, "no exit of process %d is told", init.pid)
		} else if !init.deletedAt {
			bad(eventsBad, "no delete of process %d is told", init.pid)
		}
		for id, e := range execs {
			if e.started && !e.exited {
				bad(exitLost, "no exit of exec %s, process %d, is told", id, e.pid)
			}
		}
	}
	if s.Restarted {
		told = apart(told)
	}
	var last daemon.Event
	for i, e := range told {
		if i > 0 && e == last {
			if !s.Restarted {
				bad(eventsBad, "told twice: %s", e)
			}
			continue
		}
		last = e
		if e.Topic == "/tasks/create" {
			over()
			if init != nil && !init.deletedAt && !s.Killed {
				bad(eventsBad, "created again before it is deleted: %s", e)
			}
			init, execs = &one{pid: e.PID}, map[string]*one{}
			continue
		}
		if init == nil {
			bad(eventsBad, "told before a create: %s", e)
			continue
		}
		if init.deletedAt {
			bad(eventsBad, "told after the delete: %s", e)
			continue
		}
		if e.Topic == "/tasks/exit" || e.Topic == "/tasks/delete" {
			if want, ok := s.Exits[e.PID]; ok && want != e.ExitStatus {
				bad(exitWrong, "callers were given %d, but told is %s", want, e)
			}
		}
		if e.ExecID == "" {
			ofInit(bad, init, execs, e)
		} else {
			ofExec(bad, init, execs, e)
		}
	}
	over()
	return wrong
}

// apart puts the events of one life after those of the other, each in its order.
// Those of init name its process; execs are of the life that was started, for
// one that was not is taken back.
func apart(told []daemon.Event) (list []daemon.Event) {
	var order []uint32
	lives := map[uint32][]daemon.Event{}
	current := uint32(0)
	for _, e := range told {
		life := e.PID
		if e.ExecID != "" {
			life = current
		}
		if e.Topic == "/tasks/start" {
			current = e.PID
		}
		if lives[life] == nil {
			order = append(order, life)
		}
		lives[life] = append(lives[life], e)
	}
	for _, pid := range order {
		list = append(list, lives[pid]...)
	}
	return list
}

func ofInit(bad func(category, string, ...any), init *one, execs map[string]*one, e daemon.Event) {
	switch e.Topic {
	case "/tasks/start":
		if init.started || init.exited {
			bad(eventsBad, "out of order: %s", e)
		}
		init.started = true
	case "/tasks/exit":
		if init.exited {
			bad(eventsBad, "a second exit: %s", e)
		}
		init.exited = true
		for id, other := range execs {
			if other.started && !other.exited {
				bad(eventsBad, "the exit of init is told before that of exec %s", id)
			}
		}
	case "/tasks/delete":
		if !init.exited {
			bad(eventsBad, "deleted before its exit: %s", e)
		}
		init.deletedAt = true
	default:
		return
	}
	if e.PID != init.pid {
		bad(eventsBad, "process %d was created, but told is %s", init.pid, e)
	}
}

func ofExec(bad func(category, string, ...any), init *one, execs map[string]*one, e daemon.Event) {
	x := execs[e.ExecID]
	if x == nil {
		x = &one{}
		execs[e.ExecID] = x
		if e.Topic != "/tasks/exec-added" {
			bad(eventsBad, "of an exec that was not added: %s", e)
		}
	}
	switch e.Topic {
	case "/tasks/exec-added":
		if x.added && !x.deletedAt {
			bad(eventsBad, "added twice: %s", e)
		}
		*x = one{added: true}
	case "/tasks/exec-started":
		if x.started || init.exited {
			bad(eventsBad, "out of order: %s", e)
		}
		x.started, x.pid = true, e.PID
	case "/tasks/exit":
		if x.exited || !x.started || x.deletedAt {
			bad(eventsBad, "out of order: %s", e)
		}
		if e.PID != x.pid {
			bad(eventsBad, "process %d was started, but told is %s", x.pid, e)
		}
		x.exited = true
	case "/tasks/delete":
		if x.started && !x.exited {
			bad(eventsBad, "deleted before its exit: %s", e)
		}
		x.deletedAt = true
	}
}
