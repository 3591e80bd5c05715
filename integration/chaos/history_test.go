package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/integration/daemon"
)

// events are written as words: topic pid[/exec][=status].
func events(text string) (list []daemon.Event) {
	for line := range strings.SplitSeq(text, ",") {
		var topic, rest string
		fmt.Sscan(line, &topic, &rest)
		e := daemon.Event{Topic: "/tasks/" + topic, ContainerID: "c"}
		rest, status, _ := strings.Cut(rest, "=")
		pid, exec, _ := strings.Cut(rest, "/")
		fmt.Sscan(pid, &e.PID)
		fmt.Sscan(status, &e.ExitStatus)
		e.ExecID = exec
		list = append(list, e)
	}
	return list
}

// A check that finds nothing wrong proves nothing, so each fault is shown to it.
func TestEveryFaultOfAHistoryIsFound(t *testing.T) {
	const (
		good   = "create 1, start 1, exit 1=3, delete 1=3"
		joined = "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 2/x=4, delete 2/x=4, exit 1=3, delete 1=3"
	)
	for _, c := range []struct {
		name, told string
		story      story
		want       category // "" for nothing
	}{
		{"a whole life", good, story{}, ""},
		{"with an exec", joined, story{}, ""},
		{"an exec that nobody deletes", "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 2/x=4, exit 1=3, delete 1=3", story{}, ""},
		{"an exec whose start failed", "create 1, start 1, exec-added 0/x, delete 0/x=255, exit 1=3, delete 1=3", story{}, ""},
		{"never started", "create 1, exit 1=137, delete 1=137", story{}, ""},
		{"two lives", good + ", create 5, start 5, exit 5=0, delete 5=0", story{}, ""},

		{"no exit", "create 1, start 1, delete 1=3", story{}, exitLost},
		{"no end", "create 1, start 1", story{}, exitLost},
		{"no end, of a shim that was killed", "create 1, start 1", story{Killed: true}, ""},
		{"no delete", "create 1, start 1, exit 1=3", story{}, eventsBad},
		{"no end of the first life", "create 1, start 1, create 5, exit 5=137, delete 5=137", story{}, exitLost},
		{"no exit of an exec", "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 1=3, delete 1=3", story{}, exitLost},
		{"two exits", "create 1, start 1, exit 1=3, exit 1=4, delete 1=3", story{}, eventsBad},
		{"two exits of an exec", "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 2/x=4, exit 2/x=5, exit 1=3, delete 1=3", story{}, eventsBad},
		{"an exit of an exec that was not started", "create 1, start 1, exec-added 0/x, exit 2/x=4, exit 1=3, delete 1=3", story{}, eventsBad},
		{"started after the exit", "create 1, exit 1=3, start 1, delete 1=3", story{}, eventsBad},
		{"deleted before the exit", "create 1, start 1, delete 1=3, exit 1=3", story{}, eventsBad},
		{"exec exits after init", "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 1=3, exit 2/x=4, delete 1=3", story{}, eventsBad},
		{"exec starts after init's exit", "create 1, start 1, exec-added 0/x, exit 1=3, exec-started 2/x, exit 2/x=4, delete 1=3", story{}, eventsBad},
		{"exec without an add", "create 1, start 1, exec-started 2/x, exit 2/x=4, exit 1=3, delete 1=3", story{}, eventsBad},
		{"something before the create", "start 1, create 1, exit 1=3, delete 1=3", story{}, eventsBad},
		{"something after the delete", good + ", start 1", story{}, eventsBad},
		{"another pid", "create 1, start 2, exit 1=3, delete 1=3", story{}, eventsBad},
		{"another pid of an exec", "create 1, start 1, exec-added 0/x, exec-started 2/x, exit 3/x=4, exit 1=3, delete 1=3", story{}, eventsBad},
		{"twice", "create 1, start 1, exit 1=3, exit 1=3, delete 1=3", story{}, eventsBad},
		{"twice beside a restart", "create 1, start 1, exit 1=3, exit 1=3, delete 1=3", story{Restarted: true}, ""},
		{"another one between, beside a restart", "create 1, start 1, create 1, exit 1=3, delete 1=3", story{Restarted: true}, exitLost},
		{"two shims at once", "create 5, start 5, create 1, exit 1=137, delete 1=137, exec-added 0/x, exec-started 6/x, exit 6/x=0, exit 5=0, delete 5=0", story{}, eventsBad},
		{"two shims at once, beside a restart", "create 5, start 5, create 1, exit 1=137, delete 1=137, exec-added 0/x, exec-started 6/x, exit 6/x=0, exit 5=0, delete 5=0", story{Restarted: true}, ""},
		{"another pid, beside a restart", "create 1, start 2, exit 1=3, delete 1=3", story{Restarted: true}, eventsBad},
		{"no exit of one of two", "create 5, start 5, create 1, exit 5=0, delete 5=0", story{Restarted: true}, exitLost},
		{"another status than callers got", good, story{Exits: map[uint32]uint32{1: 4}}, exitWrong},
		{"another status of an exec", joined, story{Exits: map[uint32]uint32{2: 3}}, exitWrong},
		{"the status that callers got", joined, story{Exits: map[uint32]uint32{1: 3, 2: 4}}, ""},
	} {
		got := judge(events(c.told), c.story)
		found := false
		for _, v := range got {
			found = found || v.Category == c.want
		}
		if c.want == "" && len(got) > 0 || c.want != "" && !found {
			t.Errorf("%s: found %v, want %q", c.name, got, c.want)
		}
	}
}
