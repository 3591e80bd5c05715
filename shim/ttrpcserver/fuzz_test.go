package ttrpcserver

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// seeds are all frames of the conversation that are not too long to be
// changed at random.
func seeds() [][]byte {
	var seeds [][]byte
	for _, s := range conversation() {
		if len(s.send) < 1<<12 {
			seeds = append(seeds, s.send)
		}
	}
	return append(seeds, slices.Concat(seeds...), headOf(maxData, 1, requestFrame, 0), headOf(maxData+1, 1, requestFrame, 0))
}

// misbehaving adds what a handler can do wrong to the methods of the tests.
func misbehaving() map[string]Handler {
	return map[string]Handler{
		"Panic": func(context.Context, []byte) ([]byte, error) { panic("fuzz") },
		"Mirror": func(_ context.Context, payload []byte) ([]byte, error) {
			return payload, nil
		},
	}
}

// bombard sends bytes on a new connection, tells that there will be no more
// and waits for the server to end the connection. Every answer must be a whole
// frame, and nothing may be left in the server.
func bombard(t *testing.T, s *Server, path string, data []byte) {
	w := dial(t, path)
	defer w.Close()
	go func() {
		w.Write(data) // fails when the server ends the connection first
		w.CloseWrite()
	}()
	for {
		frame, err := w.readFrame()
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the connection ended with %v", err)
			}
			break
		}
		if h := headerOf(frame); h.kind != responseFrame || h.flags != 0 || h.length > maxData {
			t.Fatalf("not a response: %+v", h)
		}
		var r ttrpc.Response
		if err := proto.Unmarshal(frame[headerSize:], &r); err != nil {
			t.Fatalf("response: %v", err)
		}
	}
	expectNothingOpen(t, s)
}

// FuzzConnection: whatever bytes come, the server neither panics nor hangs nor
// keeps anything.
func FuzzConnection(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed)
	}
	s, path := start(f, Options{}, misbehaving())
	f.Fuzz(func(t *testing.T, data []byte) { bombard(t, s, path, data) })
}

// mutate changes a frame in one of the ways that matter to a parser.
func mutate(random *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	for range 1 + random.IntN(4) {
		if len(data) == 0 {
			return data
		}
		at := random.IntN(len(data))
		switch random.IntN(5) {
		case 0:
			data[at] = byte(random.Uint32())
		case 1:
			data[at] ^= 1 << random.IntN(8)
		case 2:
			data = data[:at]
		case 3:
			data = slices.Delete(data, at, min(len(data), at+1+random.IntN(8)))
		case 4:
			data = slices.Insert(data, at, data[at:min(len(data), at+random.IntN(12))]...)
		}
	}
	return data
}

// The fuzz test's short run for every day.
func TestConnectionSurvivesRandomBytes(t *testing.T) {
	s, path := start(t, Options{}, misbehaving())
	random := rand.New(rand.NewPCG(5, uint64(time.Now().UnixNano())))
	seeds := seeds()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !t.Failed(); {
		var data []byte
		for range 1 + random.IntN(10) {
			data = append(data, mutate(random, seeds[random.IntN(len(seeds))])...)
		}
		bombard(t, s, path, data)
		if t.Failed() {
			t.Logf("%q", data)
		}
	}
}

// compareDecoding decodes a request with our decoder and with the protobuf
// library.
func compareDecoding(t *testing.T, data []byte) {
	t.Helper()
	got, err := decodeCall(data)
	var want ttrpc.Request
	wantErr := proto.Unmarshal(data, &want)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%q: error %v, want %v", data, err, wantErr)
	}
	if wantErr != nil {
		return
	}
	var md Metadata
	for _, kv := range want.Metadata {
		if md == nil {
			md = Metadata{}
		}
		md[kv.Key] = append(md[kv.Key], kv.Value)
	}
	if string(got.service) != want.Service || string(got.method) != want.Method || !slices.Equal(got.payload, want.Payload) ||
		got.timeout != time.Duration(want.TimeoutNano) || !maps.EqualFunc(got.metadata, md, slices.Equal) {
		t.Fatalf("%q: decoded %+v, want %v", data, got, &want)
	}
}

// FuzzDecodeCall: our decoder takes what the protobuf library takes.
func FuzzDecodeCall(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed[min(len(seed), headerSize):])
	}
	f.Fuzz(func(t *testing.T, data []byte) { compareDecoding(t, data) })
}

func TestRequestsAreDecodedAsByTheProtobufLibrary(t *testing.T) {
	random := rand.New(rand.NewPCG(6, uint64(time.Now().UnixNano())))
	seeds := seeds()
	for range 100_000 {
		data := seeds[random.IntN(len(seeds))]
		compareDecoding(t, mutate(random, data[min(len(data), headerSize):]))
	}
}

// The payload of an ordinary request is not copied: it may have 4 MiB.
func TestPayloadLiesInTheFrame(t *testing.T) {
	data := requestOf(1, "Echo", "payload")[headerSize:]
	c, err := decodeCall(data)
	if err != nil {
		t.Fatal(err)
	}
	before := string(c.payload)
	for i := range data {
		data[i] = 0
	}
	if string(c.payload) == before {
		t.Error("it is a copy")
	}
}
