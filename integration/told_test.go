package integration

// What a shim tells of its containers.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/integration/daemon"
)

// told waits until an event with this topic is told of the container, or of an
// exec of it, and returns all that were told until then.
func (m *member) told(topic, execID string) []daemon.Event {
	m.t.Helper()
	events, err := m.sink.Until(within(m.t, soon), m.id, func(list []daemon.Event) bool {
		return indexOf(list, topic, execID) >= 0
	})
	if err != nil {
		m.t.Fatalf("%s %s: %v", topic, execID, err)
	}
	return events
}

// mark makes one more event and waits for it: then all before it have been told
// and will not be told again, even if the sink goes away now.
func (m *member) mark() {
	m.t.Helper()
	m.add(m.execRequest("mark", "true"))
	m.told("/tasks/exec-added", "mark")
	m.delete("mark")
}

// indexOf finds the first event of a topic about a process, or -1.
func indexOf(list []daemon.Event, topic, execID string) int {
	return slices.IndexFunc(list, func(e daemon.Event) bool { return e.Topic == topic && e.ExecID == execID })
}

func lastIndexOf(list []daemon.Event, topic, execID string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Topic == topic && list[i].ExecID == execID {
			return i
		}
	}
	return -1
}

// inOrder tells what is wrong when events are not there once each, in this
// order. Each is a topic and, after a blank, the id of an exec.
func inOrder(list []daemon.Event, want ...string) error {
	last := -1
	for _, w := range want {
		topic, execID, _ := strings.Cut(w, " ")
		at := indexOf(list, topic, execID)
		switch {
		case at < 0:
			return fmt.Errorf("no %s in:\n%s", w, eventLines(list))
		case at < last:
			return fmt.Errorf("%s is out of order in:\n%s", w, eventLines(list))
		case indexOf(list[at+1:], topic, execID) >= 0:
			return fmt.Errorf("%s more than once in:\n%s", w, eventLines(list))
		}
		last = at
	}
	return nil
}

func eventLines(list []daemon.Event) string {
	var text []string
	for _, e := range list {
		text = append(text, e.String())
	}
	return lines(text)
}
