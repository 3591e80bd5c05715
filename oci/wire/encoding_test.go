package wire

import (
	"bytes"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// The law is what protobuf's own package writes.
func TestWhatIsWrittenIsProtobufs(t *testing.T) {
	var values []uint64
	for bit := range 64 {
		values = append(values, 1<<bit-1, 1<<bit, 1<<bit+1)
	}
	values = append(values, math.MaxUint64)
	for _, v := range values {
		if got, want := AppendVarint(nil, v), protowire.AppendVarint(nil, v); !bytes.Equal(got, want) {
			t.Errorf("%d: % x, want % x", v, got, want)
		}
		if got, want := sizeOfVarint(v), protowire.SizeVarint(v); got != want {
			t.Errorf("%d takes %d bytes, want %d", v, got, want)
		}
		number := max(1, int32(v&(1<<29-1)))
		for kind := range Kind(6) {
			got := AppendTag(nil, number, kind)
			if want := protowire.AppendTag(nil, protowire.Number(number), protowire.Type(kind)); !bytes.Equal(got, want) {
				t.Errorf("tag %d, %d: % x, want % x", number, kind, got, want)
			}
		}
	}
	for _, size := range []int{0, 1, 127, 128, 1 << 14} {
		text := bytes.Repeat([]byte("a"), size)
		want := protowire.AppendBytes(nil, text)
		if got := AppendSized(nil, text); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: % x, want % x", size, got, want)
		}
		if got := AppendSized(nil, string(text)); !bytes.Equal(got, want) {
			t.Errorf("a text of %d bytes: % x, want % x", size, got, want)
		}
	}
	if got, want := AppendBool(nil, 7, true), protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 1); !bytes.Equal(got, want) {
		t.Errorf("true is % x, want % x", got, want)
	}
	want := protowire.AppendFixed64(protowire.AppendTag(nil, 7, protowire.Fixed64Type), math.Float64bits(-1.5))
	if got := AppendDouble(nil, 7, -1.5); !bytes.Equal(got, want) {
		t.Errorf("-1.5 is % x, want % x", got, want)
	}
}

func groups(depth int) []byte {
	b := bytes.Repeat(protowire.AppendTag(nil, 1, protowire.StartGroupType), depth)
	return append(b, bytes.Repeat(protowire.AppendTag(nil, 1, protowire.EndGroupType), depth)...)
}

// What is read, and what is refused, is what protobuf's own package does.
func FuzzWhatIsReadIsProtobufs(f *testing.F) {
	for _, seed := range [][]byte{
		{},
		AppendUint64(nil, 1, math.MaxUint64),
		AppendElement(AppendDouble(nil, 3, 1), 2, "text"),
		protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 1),
		AppendTag(nil, 1, VarintKind),
		AppendTag(nil, 1, Fixed64Kind),
		AppendTag(nil, 1, Fixed32Kind),
		AppendTag(nil, 1, 6),
		AppendTag(nil, 1, 7),
		AppendTag(nil, 0, VarintKind),
		append(AppendTag(nil, maxNumber, VarintKind), 1),
		append(AppendTag(nil, maxNumber+1, VarintKind), 1),
		append(AppendVarint(nil, math.MaxInt32<<3), 1),
		append(AppendVarint(nil, (math.MaxInt32+1)<<3), 1),
		append(AppendTag(nil, 1, BytesKind), 5, 'a'),
		append(AppendTag(nil, 1, BytesKind), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
		bytes.Repeat([]byte{0xff}, 9),
		bytes.Repeat([]byte{0xff}, 10),
		bytes.Repeat([]byte{0xff}, 11),
		append(AppendTag(nil, 1, VarintKind), bytes.Repeat([]byte{0xff}, 9)...),
		append(AppendTag(nil, 1, VarintKind), bytes.Repeat([]byte{0xff}, 10)...),
		append(append(AppendTag(nil, 1, VarintKind), bytes.Repeat([]byte{0xff}, 9)...), 1),
		append(append(AppendTag(nil, 1, VarintKind), bytes.Repeat([]byte{0xff}, 9)...), 2),
		append(append(AppendTag(nil, 1, VarintKind), bytes.Repeat([]byte{0x80}, 9)...), 0),
		groups(1), groups(2), groups(10000), groups(10001), groups(10002),
		AppendTag(nil, 1, startGroupKind),
		AppendTag(nil, 1, endGroupKind),
		AppendTag(AppendTag(nil, 1, startGroupKind), 2, endGroupKind),
		AppendTag(append(AppendTag(AppendTag(nil, 1, startGroupKind), maxNumber+1, VarintKind), 1), 1, endGroupKind),
		AppendTag(AppendElement(AppendTag(nil, 1, startGroupKind), 2, "inside"), 1, endGroupKind),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		rest := message
		for got, err := range Fields(message) {
			number, kind, n := protowire.ConsumeField(rest)
			refused := n < 0 || number > protowire.MaxValidNumber
			if refused != (err != nil) {
				t.Fatalf("% x: %v, and protobuf: %v", rest, err, protowire.ParseError(n))
			}
			if refused {
				return
			}
			if got.Number != int32(number) || got.kind != Kind(kind) {
				t.Fatalf("% x: field %d of kind %d, want %d, %d", rest, got.Number, got.kind, number, kind)
			}
			_, _, tag := protowire.ConsumeTag(rest)
			switch kind {
			case protowire.VarintType:
				if want, _ := protowire.ConsumeVarint(rest[tag:]); got.number != want {
					t.Fatalf("% x: %d, want %d", rest, got.number, want)
				}
			case protowire.BytesType:
				if want, _ := protowire.ConsumeBytes(rest[tag:]); !bytes.Equal(got.bytes, want) {
					t.Fatalf("% x: % x, want % x", rest, got.bytes, want)
				}
			}
			rest = rest[n:]
		}
		if len(rest) > 0 {
			t.Fatalf("% x is left", rest)
		}
	})
}
