package events

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/containerd/containerd/api/types"
)

// Through many hand-overs each event is taken once and in order, whatever the
// sender was doing and whether or not containerd was there.
func TestEventsAreTakenOnceThroughManyHandovers(t *testing.T) {
	for _, limits := range limitsOfMemory {
		t.Run(limits.name, func(t *testing.T) { handOverAgainAndAgain(t, limits) })
	}
}

func handOverAgainAndAgain(t *testing.T, l limits) {
	d := newDaemon(t)
	q, said := d.queue()
	l.of(t, q)
	topics := numbered(300)
	for n, topic := range topics {
		publish(q, topic)
		switch n {
		case 30, 130:
			d.start()
		case 80:
			d.stop()
		}
		if n%3 != 0 {
			continue
		}
		must(t, "hold", q.Hold(bounded(t)))
		if n%2 == 0 { // it could not be handed over
			q.GoOn()
			continue
		}
		files := &handover.Files{Copy: true}
		encoded, err := json.Marshal(q.State(files))
		must(t, "encode", err)
		var restored State
		must(t, "decode", json.Unmarshal(encoded, &restored))
		inherited := handover.Inherit(files.Numbers)
		q, err = Restore(Options{Address: d.address, Namespace: "space", Log: said.log}, restored, inherited)
		must(t, "restore", err)
		inherited.Own()
		l.of(t, q)
		q.GoOn()
	}
	must(t, "drain", q.Drain(bounded(t), patience))
	d.hasTaken(topics...)
	if sent, pending := q.Counters(); sent != uint64(len(topics)) || pending != 0 {
		t.Errorf("%d sent, %d pending", sent, pending)
	}
}

// An event that containerd has and has not answered for cannot be handed over:
// whether it was taken is not known.
func TestHoldWaitsForTheEventOnItsWay(t *testing.T) {
	d := newDaemon(t)
	asked, goOn := make(chan struct{}), make(chan struct{})
	d.answer = func(*types.Envelope) error {
		asked <- struct{}{}
		<-goOn
		return nil
	}
	d.start()
	q, _ := d.queue()
	publish(q, "one")
	<-asked
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := q.Hold(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("held with an event on its way: %v", err)
	}
	q.GoOn()
	publish(q, "two")
	held := make(chan error, 1)
	go func() { held <- q.Hold(bounded(t)) }()
	goOn <- struct{}{}
	must(t, "hold", <-held)
	s := q.State(nil)
	if len(s.Pending) != 1 {
		t.Errorf("%d events are pending", len(s.Pending))
	}
	d.hasTaken("one")
	close(goOn)
	q.GoOn()
	<-asked
	d.hasTaken("one", "two")
}
