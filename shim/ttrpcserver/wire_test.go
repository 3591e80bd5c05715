package ttrpcserver

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// step is what is sent at once, and how many answers come.
type step struct {
	name    string
	send    []byte
	answers int
}

// conversation is every kind of frame, good and bad, that ttrpc's server
// survives.
func conversation() []step {
	request := func(id uint32, r *ttrpc.Request) []byte { return frameOf(id, requestFrame, 0, marshal(r)) }
	text := func(s string) []byte { return marshal(wrapperspb.String(s)) }
	raw := func(id uint32, data []byte) []byte { return frameOf(id, requestFrame, 0, data) }
	field := func(b []byte, number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), value)
	}
	echo := field(field(field(nil, 1, testService), 2, "Echo"), 3, string(text("plain bytes")))

	steps := []step{
		{"a request", requestOf(1, "Echo", "hello"), 1},
		{"an empty answer", requestOf(3, "Echo", ""), 1},
		{"two requests in one write", append(requestOf(5, "Echo", "one"), requestOf(7, "Echo", "two")...), 2},
		{"a gap in the ids", requestOf(101, "Echo", "gap"), 1},
		{"the last id again", requestOf(101, "Echo", "again"), 1},
		{"a lower id", requestOf(55, "Echo", "lower"), 1},
		{"an even id", requestOf(200, "Echo", "even"), 1},
		{"id zero", requestOf(0, "Echo", "zero"), 1},
		{"the next id after even ones", requestOf(103, "Echo", "next"), 1},
		{"flag remote closed", frameOf(105, requestFrame, 1, requestOf(0, "Echo", "rc")[headerSize:]), 1},
		{"flag remote open", frameOf(107, requestFrame, 2, requestOf(0, "Echo", "ro")[headerSize:]), 1},
		{"all flags", frameOf(109, requestFrame, 0xff, requestOf(0, "Echo", "all")[headerSize:]), 1},
		{"unknown service", request(111, &ttrpc.Request{Service: "a.b.C", Method: "Echo"}), 1},
		{"unknown method", request(113, &ttrpc.Request{Service: testService, Method: "None"}), 1},
		{"method in other case", request(115, &ttrpc.Request{Service: testService, Method: "echo"}), 1},
		{"empty request", raw(117, nil), 1},
		{"no payload", request(119, &ttrpc.Request{Service: testService, Method: "Echo"}), 1},
		{"id of a refused request again", request(119, &ttrpc.Request{Service: testService, Method: "Echo"}), 1},

		{"truncated message", raw(201, echo[:len(echo)-1]), 1},
		{"only a tag", raw(203, []byte{0x0a}), 1},
		{"random bytes", raw(205, []byte("\xff\xfe\xfd\xfc")), 1},
		{"field number zero", raw(207, []byte{0x02, 0x00}), 1},
		{"field number too large", raw(209, protowire.AppendVarint(nil, math.MaxUint64&^7|2)), 1},
		{"lone end of group", raw(211, append([]byte{0x0c}, echo...)), 1},
		{"group", raw(213, append([]byte{0x33, 0x34}, echo...)), 1},
		{"open group", raw(215, append([]byte{0x33}, echo...)), 1},
		{"varint too long", raw(217, bytes.Repeat([]byte{0xff}, 12)), 1},
		{"service is not UTF-8", raw(219, field(echo, 1, "\xff")), 1},
		{"method is not UTF-8", raw(221, field(echo, 2, "a\xc3")), 1},
		{"metadata is not UTF-8", raw(223, field(echo, 5, string(field(nil, 1, "\xff")))), 1},
		{"metadata is malformed", raw(225, field(echo, 5, "\xff")), 1},
		{"unknown field", raw(227, field(echo, 9, "later")), 1},
		{"unknown field in metadata", raw(229, field(echo, 5, string(field(nil, 9, "later")))), 1},
		{"service as a number", raw(231, append(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7), echo...)), 1},
		{"timeout as bytes", raw(233, field(echo, 4, "12")), 1},
		{"timeout too long", raw(235, append(slices.Clone(echo), 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)), 1},
		{"wire type six", raw(237, append(slices.Clone(echo), 0x0e)), 1},
		{"fields twice, the last counts", raw(239, field(field(field(echo, 1, testService), 2, "Echo"), 3, string(text("second")))), 1},
		{"service twice, the last is unknown", raw(241, field(echo, 1, "other")), 1},
		{"malformed message used its id up", requestOf(225, "Echo", "x"), 1},
		{"payload is malformed", request(243, &ttrpc.Request{Service: "x", Method: "Echo", Payload: []byte{0xff}}), 1},

		{"data on an unknown stream", frameOf(301, dataFrame, 0, text("x")), 1},
		{"last data on an unknown stream", frameOf(301, dataFrame, 5, nil), 1},
		{"data with an even id", frameOf(302, dataFrame, 0, nil), 1},
		{"the id of refused data is still free", requestOf(301, "Echo", "free"), 1},
		{"a response", frameOf(303, responseFrame, 0, text("x")), 0},
		{"a response with an even id", frameOf(304, responseFrame, 0, text("x")), 1},
		{"unknown types", slices.Concat(frameOf(305, 0, 0, nil), frameOf(307, 4, 1, text("x")), frameOf(309, 255, 0, text("y"))), 0},
		{"unknown type with an even id", frameOf(306, 9, 0, nil), 1},

		{"metadata", request(401, &ttrpc.Request{Service: testService, Method: "Metadata", Payload: text("key"),
			Metadata: []*ttrpc.KeyValue{{Key: "key", Value: "a"}, {Key: "other", Value: "b"}, {Key: "key", Value: "c"}}}), 1},
		{"metadata in upper case", request(403, &ttrpc.Request{Service: testService, Method: "Metadata", Payload: text("KEY"),
			Metadata: []*ttrpc.KeyValue{{Key: "KEY", Value: "a"}}}), 1},
		{"empty metadata", request(405, &ttrpc.Request{Service: testService, Method: "Metadata", Payload: text(""),
			Metadata: []*ttrpc.KeyValue{{}}}), 1},
		{"no metadata", requestOf(407, "Metadata", "key"), 1},
		{"no deadline", requestOf(409, "Deadline", ""), 1},
		{"a deadline", request(411, &ttrpc.Request{Service: testService, Method: "Deadline", TimeoutNano: 1e12}), 1},
		{"a deadline that passes", request(413, &ttrpc.Request{Service: testService, Method: "UntilDone", TimeoutNano: 1e6}), 1},
		{"a deadline that has passed", request(415, &ttrpc.Request{Service: testService, Method: "UntilDone", TimeoutNano: -1}), 1},
	}
	id := uint32(501)
	for _, method := range []string{"Plain", "NotFound", "Precondition",
		"Unavailable", "Canceled", "TooLate"} { // of joined errors containerd's package sends the parts, too
		steps = append(steps, step{"error " + method, requestOf(id, method, ""), 1})
		id += 2
	}
	// The largest request that fits, and what does not. 4 MiB with the
	// request's own fields around the text; the echo is smaller.
	room := maxData - (len(requestOf(1, "Echo", strings.Repeat("x", 1<<20))) - headerSize - 1<<20) - 2
	steps = append(steps,
		step{"the largest request", requestOf(601, "Echo", strings.Repeat("x", room)), 1},
		step{"too large a request", frameOf(603, requestFrame, 0, make([]byte, maxData+1)), 1},
		step{"its id is still free", requestOf(603, "Echo", "free"), 1},
		step{"too much data", frameOf(605, dataFrame, 0, make([]byte, maxData+1)), 1},
		step{"too large and even", frameOf(606, requestFrame, 0, make([]byte, maxData+10)), 1},
		step{"too large and unknown", frameOf(607, 77, 0, make([]byte, 2*maxData)), 1},

		step{"a request that waits", requestOf(701, "Hold", "held"), 0},
		step{"a data frame without data for it", frameOf(701, dataFrame, flagNoData, nil), 0},
		step{"its id again while it waits", requestOf(701, "Echo", "again"), 1},
		step{"others meanwhile", requestOf(703, "Echo", "meanwhile"), 1},
		step{"its end", requestOf(705, "Release", "released"), 2},

		step{"the highest id", requestOf(math.MaxUint32, "Echo", "highest"), 1},
		step{"nothing after it", requestOf(707, "Echo", "x"), 1},
		step{"half a header", requestOf(709, "Echo", "x")[:7], 0},
	)
	return steps
}

// talk sends the steps one after the other and returns the answers to each, in
// the order of their bytes, and what came after the last until the end.
func talk(t *testing.T, path string, steps []step) [][][]byte {
	t.Helper()
	w := dial(t, path)
	answers := make([][][]byte, 0, len(steps)+1)
	for _, s := range steps {
		w.send(s.send)
		var got [][]byte
		for range s.answers {
			frame, err := w.readFrame()
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			got = append(got, frame)
		}
		slices.SortFunc(got, bytes.Compare)
		answers = append(answers, got)
	}
	w.CloseWrite()
	var rest [][]byte
	for {
		frame, err := w.readFrame()
		if err != nil {
			return append(answers, rest)
		}
		rest = append(rest, frame)
	}
}

// Clients must not be able to tell the two servers apart.
func TestAnswersAreThoseOfTtrpcsServerByteForByte(t *testing.T) {
	steps := conversation()
	if i := slices.IndexFunc(steps, func(s step) bool { return s.name == "the largest request" }); len(steps[i].send) != headerSize+maxData {
		t.Fatalf("the largest request has %d bytes", len(steps[i].send))
	}
	s, path := start(t, Options{Log: t.Logf}, nil)
	ours := talk(t, path, steps)
	theirs := talk(t, startTheirs(t), steps)
	for i, want := range theirs {
		name := "after the end"
		if i < len(steps) {
			name = steps[i].name
		}
		if !slices.EqualFunc(ours[i], want, sameAnswer) {
			t.Errorf("%s:\nours   %s\ntheirs %s", name, brief(ours[i]), brief(want))
		}
	}
	expectNothingOpen(t, s)
}

// sameAnswer compares two frames. What is wrong with a request that is no message
// is said in the protobuf library's own words, which are not compared, nor is
// their length: it does not want that either, and says so by chance.
func sameAnswer(ours, theirs []byte) bool {
	const malformed = "unmarshal request error: "
	a, _, is := bytes.Cut(ours, []byte(malformed))
	b, _, want := bytes.Cut(theirs, []byte(malformed))
	if !is || !want {
		return bytes.Equal(ours, theirs)
	}
	return bytes.Equal(a[4:headerSize], b[4:headerSize])
}

func brief(frames [][]byte) string {
	var b strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&b, "[%d bytes] %q ", len(f), f[:min(len(f), 200)])
	}
	return b.String()
}

// The frames of the same conversation must give the same answers however they
// are cut up on their way.
func TestFramesMayComeInPiecesOfAnySize(t *testing.T) {
	// Without the largest ones: a byte at a time they take a minute.
	var steps []step
	for _, s := range conversation() {
		if len(s.send) < maxData/2 {
			steps = append(steps, s)
		}
	}
	_, path := start(t, Options{}, nil)
	want := talk(t, path, steps)
	for _, size := range []int{1, 2, 3, 9, 10, 11, 64, 4095} {
		w := dial(t, path)
		for i, s := range steps {
			for part := range slices.Chunk(s.send, size) {
				w.send(part)
			}
			var got [][]byte
			for range s.answers {
				frame, err := w.readFrame()
				if err != nil {
					t.Fatalf("%d bytes at a time, %s: %v", size, s.name, err)
				}
				got = append(got, frame)
			}
			slices.SortFunc(got, bytes.Compare)
			if !slices.EqualFunc(got, want[i], bytes.Equal) {
				t.Fatalf("%d bytes at a time, %s:\ngot  %s\nwant %s", size, s.name, brief(got), brief(want[i]))
			}
		}
		w.Close()
	}
}

// A large frame that follows small ones in one write begins in the middle of
// what is read at once; the frames after it must not be lost in it.
func TestLargeFramesAmongSmallOnes(t *testing.T) {
	_, path := start(t, Options{}, nil)
	w := dial(t, path)
	want := map[uint32]string{}
	var all []byte
	for i, size := range []int{0, 1, 4000, 4096, 5000, 12, 70000, 3, 1 << 20, 4086, 9, 300000, 1} {
		id := uint32(2*i + 1)
		want[id] = strings.Repeat(string(rune('a'+i)), size)
		all = append(all, requestOf(id, "Echo", want[id])...)
	}
	go w.Write(all)
	for range len(want) {
		r := w.receive()
		if r.code != codes.OK || r.text != want[r.id] {
			t.Errorf("stream %d: %v, %d bytes, want %d", r.id, r.code, len(r.text), len(want[r.id]))
		}
	}
}

// ttrpc's server dereferences a nil pointer here and takes the whole process
// with it. The words are those it has for a stream that its caller has closed.
func TestDataForAWaitingRequestIsRefusedAndTheRequestGoesOn(t *testing.T) {
	_, path := start(t, Options{}, nil)
	w := dial(t, path)
	w.send(requestOf(1, "Hold", "held"))
	w.send(frameOf(1, dataFrame, 0, []byte("data")))
	w.expect(1, codes.InvalidArgument, "data handling error: ttrpc: stream closed")
	w.send(frameOf(1, dataFrame, flagNoData|flagRemoteClosed, []byte("data")))
	w.expect(1, codes.InvalidArgument, "data close message cannot include data")
	w.send(frameOf(1, dataFrame, flagNoData|flagRemoteClosed, nil)) // nothing new: no answer
	w.send(requestOf(3, "Release", "released"))
	got := []response{w.receive(), w.receive()}
	slices.SortFunc(got, func(a, b response) int { return int(a.id) - int(b.id) })
	if want := []response{{1, codes.OK, "held"}, {3, codes.OK, "released"}}; !slices.Equal(got, want) {
		t.Errorf("answers %+v, want %+v", got, want)
	}
}
