package ttrpcserver

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// heap is what is in use after everything else has been collected.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// ttrpc's server keeps an entry for a request that is answered before it is
// noted down, as long as the connection lives: 96 MB after two million execs
// (ttrpc#236, #241). Here a request is noted down before anything can answer.
func TestMemoryAndTableStayFlatOver200000Requests(t *testing.T) {
	requests, window := 200_000, 64
	if testing.Short() {
		requests = 20_000
	}
	s, path := start(t, Options{}, map[string]Handler{
		"Null": func(context.Context, []byte) ([]byte, error) { return nil, nil },
	})
	w := dial(t, path)
	request := requestOf(0, "Null", "")
	batch := make([]byte, 0, window*len(request))
	next := uint32(1)
	answer := make([]byte, headerSize*window)
	exchange := func(n int) {
		for range n / window {
			batch = batch[:0]
			for range window {
				batch = append(batch, request...)
				at := batch[len(batch)-len(request):]
				at[4], at[5], at[6], at[7] = byte(next>>24), byte(next>>16), byte(next>>8), byte(next)
				next += 2
			}
			w.send(batch)
			for read := 0; read < len(answer); {
				n, err := w.Read(answer[read:])
				if err != nil {
					t.Fatal(err)
				}
				read += n
			}
		}
	}
	exchange(10_000)
	before := heap()
	exchange(requests)
	after := heap()
	eventually(t, "the table is empty", func() bool { return len(s.Open()) == 0 })
	// Two million execs cost stock 96 MB, so 200,000 requests would be 9.6 MB.
	if grown := after - before; grown > 64<<10 {
		t.Errorf("%d bytes more after %d requests", grown, requests)
	}
	t.Logf("%d requests: heap %d -> %d bytes", requests, before, after)
	w.Close()
	expectNothingOpen(t, s)
}

// Connections drop at any moment of their requests' lives.
func TestNothingLeaksWhenConnectionsDropAtRandom(t *testing.T) {
	s, path := start(t, Options{}, nil)
	random := rand.New(rand.NewPCG(1, 2))
	goroutines := runtime.NumGoroutine()
	for round := range 300 {
		w := dial(t, path)
		var all []byte
		for i := range uint32(40) {
			method := []string{"Echo", "Hold", "Plain", "None", "UntilDone"}[random.IntN(5)]
			all = append(all, requestOf(2*i+1, method, "text")...)
		}
		go func(cut int) {
			w.Write(all[:cut])
			w.Close()
		}(random.IntN(len(all)))
		for range random.IntN(20) {
			if _, err := w.readFrame(); err != nil {
				break
			}
		}
		if round%3 == 0 {
			w.Close()
		}
	}
	expectNothingOpen(t, s)
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// A frame is kept while its request is open, and not longer.
func TestFrameIsKeptUntilTheAnswer(t *testing.T) {
	s, path := start(t, Options{}, nil)
	w := dial(t, path)
	frame := requestOf(1, "Hold", "held")
	w.send(frame)
	eventually(t, "the request is open", func() bool { return len(s.Open()) == 1 })
	s.mu.Lock()
	kept := slices.Clone(s.open.first.frame)
	s.mu.Unlock()
	if !slices.Equal(kept, frame) {
		t.Errorf("kept %q, sent %q", kept, frame)
	}
	w.send(requestOf(3, "Release", ""))
	w.receive()
	w.receive()
	eventually(t, "the table is empty", func() bool { return len(s.Open()) == 0 })
}
