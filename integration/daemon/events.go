package daemon

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// Event is one of a task's events, as containerd passed it on.
type Event struct {
	Topic       string
	ContainerID string
	ExecID      string // "" where the event is about the container's init
	PID         uint32
	ExitStatus  uint32
}

func (e Event) String() string {
	text := fmt.Sprintf("%s %s", e.Topic, e.ContainerID)
	if e.ExecID != "" {
		text += " exec " + e.ExecID
	}
	return fmt.Sprintf("%s pid %d status %d", text, e.PID, e.ExitStatus)
}

// Events are the task events of the daemon's containers, in the order in which
// containerd tells them, from Subscribe until its context ends.
type Events struct {
	mu       sync.Mutex
	list     []Event
	messages []any // of containerd's events API, one for each of list
	err      error
	grown    chan struct{} // closed and replaced with each event and at the end
}

// probe is the topic of the event that shows that a subscription stands.
const probe = "/cleat/subscribed"

// Subscribe begins to take events. Those that happen after it has returned are
// not missed.
func (d *Daemon) Subscribe(ctx context.Context) (*Events, error) {
	client, err := d.Client()
	if err != nil {
		return nil, err
	}
	ctx = d.Context(ctx)
	filter := func(topic string) string { return fmt.Sprintf("namespace==%q,topic%s", d.namespace(), topic) }
	messages, failed := client.Subscribe(ctx, filter(`~="^/tasks/"`), filter("=="+strconv.Quote(probe)))

	e := &Events{grown: make(chan struct{})}
	standing := make(chan struct{})
	go e.take(messages, failed, standing) // ends with ctx

	// containerd tells nobody that a subscription stands, so events of our
	// own are sent until the first has come back.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if err := client.EventService().Publish(ctx, probe, &apievents.TaskPaused{ContainerID: "nobody"}); err != nil {
			return nil, fmt.Errorf("subscribe to events: %w", err)
		}
		select {
		case <-standing:
			return e, nil
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take adds what comes through a subscription until it ends.
func (e *Events) take(messages <-chan *events.Envelope, failed <-chan error, standing chan struct{}) {
	for {
		select {
		case m := <-messages:
			if m.Topic == probe {
				select {
				case <-standing:
				default:
					close(standing)
				}
				continue
			}
			e.add(decode(m.Topic, m.Event))
		case err := <-failed:
			if err == nil {
				err = context.Canceled
			}
			e.add(Event{}, nil, err)
			return
		}
	}
}

// add appends an event, or notes why there will be no more.
func (e *Events) add(event Event, message any, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.list = append(e.list, event)
		e.messages = append(e.messages, message)
	} else if e.err == nil {
		e.err = err
	}
	close(e.grown)
	e.grown = make(chan struct{})
}

// Of are the events of one container so far, in order.
func (e *Events) Of(container string) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []Event
	for _, event := range e.list {
		if event.ContainerID == container {
			list = append(list, event)
		}
	}
	return list
}

// Messages are all that containerd told with the events of Of.
func (e *Events) Messages(container string) []any {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []any
	for i, event := range e.list {
		if event.ContainerID == container {
			list = append(list, e.messages[i])
		}
	}
	return list
}

// Until waits until enough says that a container's events so far are enough
// and returns them. The error, when ctx or the subscription ends before, tells
// the events that had come.
func (e *Events) Until(ctx context.Context, container string, enough func([]Event) bool) ([]Event, error) {
	for {
		e.mu.Lock()
		grown, failed := e.grown, e.err
		e.mu.Unlock()
		list := e.Of(container)
		if enough(list) {
			return list, nil
		}
		if failed != nil {
			return list, fmt.Errorf("the subscription ended: %w; events so far: %v", failed, list)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return list, fmt.Errorf("wait for events of %s: %w; so far: %v", container, ctx.Err(), list)
		}
	}
}

// decode turns what containerd tells into an Event and its message.
func decode(topic string, packed typeurl.Any) (Event, any, error) {
	message, err := typeurl.UnmarshalAny(packed)
	if err != nil {
		return Event{}, nil, fmt.Errorf("event %s: %w", topic, err)
	}
	event := Event{Topic: topic}
	switch m := message.(type) {
	case *apievents.TaskCreate:
		event.ContainerID, event.PID = m.ContainerID, m.Pid
	case *apievents.TaskStart:
		event.ContainerID, event.PID = m.ContainerID, m.Pid
	case *apievents.TaskExit:
		event.ContainerID, event.PID, event.ExitStatus = m.ContainerID, m.Pid, m.ExitStatus
		if m.ID != m.ContainerID {
			event.ExecID = m.ID
		}
	case *apievents.TaskDelete:
		event.ContainerID, event.PID, event.ExitStatus = m.ContainerID, m.Pid, m.ExitStatus
		if m.ID != "" && m.ID != m.ContainerID {
			event.ExecID = m.ID
		}
	case *apievents.TaskExecAdded:
		event.ContainerID, event.ExecID = m.ContainerID, m.ExecID
	case *apievents.TaskExecStarted:
		event.ContainerID, event.ExecID, event.PID = m.ContainerID, m.ExecID, m.Pid
	case *apievents.TaskOOM:
		event.ContainerID = m.ContainerID
	case *apievents.TaskPaused:
		event.ContainerID = m.ContainerID
	case *apievents.TaskResumed:
		event.ContainerID = m.ContainerID
	case *apievents.TaskCheckpointed:
		event.ContainerID = m.ContainerID
	}
	return event, message, nil
}
