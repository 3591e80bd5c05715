package cri

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// told are the events of pods and containers that containerd has told a kubelet.
type told struct {
	mu   sync.Mutex
	list []*cri.ContainerEventResponse
	err  error // why there are no more
}

// listen begins to take events, until the test ends.
func listen(t *testing.T, p *pod) *told {
	t.Helper()
	ctx, cancel := context.WithCancel(p.ctx)
	stream, err := p.runtime().GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	e := &told{}
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		for {
			event, err := stream.Recv()
			if err != nil {
				e.mu.Lock()
				e.err = err
				e.mu.Unlock()
				return
			}
			e.mu.Lock()
			e.list = append(e.list, event)
			e.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return e
}

// ended is why there will be no more events, nil while there may be.
func (e *told) ended() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// of are the kinds of the events of a pod or a container, in order.
func (e *told) of(id string) (kinds []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.list {
		if event.ContainerId == id {
			kinds = append(kinds, strings.TrimSuffix(strings.TrimPrefix(event.ContainerEventType.String(), "CONTAINER_"), "_EVENT"))
		}
	}
	return kinds
}

// status of a container as its last event with this kind had it.
func (e *told) status(id string, kind cri.ContainerEventType) *cri.ContainerStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	var found *cri.ContainerStatus
	for _, event := range e.list {
		if event.ContainerId != id || event.ContainerEventType != kind {
			continue
		}
		for _, status := range event.ContainersStatuses {
			if status.Id == id {
				found = status
			}
		}
	}
	return found
}

// A kubelet that listens (evented PLEG) is told each step of a pod and of each
// of its containers once, in order, and with the status of that moment.
func TestEvents(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	p := newPod(t, d, "events")
	events := listen(t, p)
	// Nobody tells when a subscription stands: pods are run until one is told of.
	probes := 0
	eventually(t, func() error {
		probe := runPod(t, d, typed, fmt.Sprint("events-probe-", probes))
		probes++
		probe.end()
		if len(events.of(probe.id)) == 0 {
			if err := events.ended(); status.Code(err) == codes.Unimplemented {
				known := ""
				if programs.Release.Older("1.7") {
					known = "method GetContainerEvents not implemented"
				}
				cannot(t, known, err)
			}
			return fmt.Errorf("nothing was told of pod %s", probe.id)
		}
		return nil
	})
	p = runPod(t, d, typed, "events")
	exits := p.run("exits", []string{"sh", "-c", "exit 3"})
	exits.exited()
	stopped := p.run("stopped", []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 100000 & wait"})
	stopped.wrote("ready") // before, the signal would be ignored
	stopped.stop(20)
	quick := make([]*container, 5)
	for i := range quick {
		quick[i] = p.run(fmt.Sprint("quick-", i), []string{"true"})
		quick[i].exited()
	}
	never := p.create("never", forever)
	for _, c := range append(quick, exits, stopped, never) {
		c.remove()
	}
	pod := p.id
	p.end()

	whole := []string{"CREATED", "STARTED", "STOPPED", "DELETED"}
	want := map[string][]string{pod: whole, exits.id: whole, stopped.id: whole, never.id: {"CREATED", "DELETED"}}
	for _, c := range quick {
		want[c.id] = whole
	}
	for id, kinds := range want {
		eventually(t, func() error {
			if got := events.of(id); !slices.Equal(got, kinds) {
				return fmt.Errorf("of %s was told %v, want %v", id, got, kinds)
			}
			return nil
		})
	}
	for c, code := range map[*container]int32{exits: 3, stopped: 9, quick[0]: 0} {
		last := events.status(c.id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
		if last.GetState() != cri.ContainerState_CONTAINER_EXITED || last.GetExitCode() != code {
			t.Errorf("the event of the end of %s has %v, want status %d", c.name(), last, code)
		}
	}
}
