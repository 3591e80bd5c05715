package message

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	_ "github.com/containerd/containerd/api/events"
	_ "github.com/containerd/containerd/api/runtime/task/v3"
	_ "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	_ "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// theirs is an empty message of the generated type of that name.
func theirs(t testing.TB, m Message) proto.Message {
	t.Helper()
	found, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(m.Name()))
	if err != nil {
		t.Fatal(err)
	}
	return found.New().Interface()
}

func fresh(m Message) Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
}

// fill gives fields values by chance, many their zero ones. Maps get one entry
// at most, since their order is none.
func fill(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case r.IntN(4) == 0:
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString(text(r)).MapKey(), protoreflect.ValueOfString(text(r)))
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(4) {
				if f.Message() != nil {
					fill(r, list.AppendMutable().Message())
				} else {
					list.Append(scalar(r, f))
				}
			}
		case f.Message() != nil:
			fill(r, m.Mutable(f).Message())
		default:
			m.Set(f, scalar(r, f))
		}
	}
}

func text(r *rand.Rand) string {
	return strings.Repeat("aé\x00😀", r.IntN(40))
}

func scalar(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := r.Uint64() >> r.IntN(65)
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(r))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text(r) + "\xff"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n))
	}
	return protoreflect.ValueOfUint64(n)
}

// What the generated types write is read and written the same.
func TestMessagesAreThoseOfTheGeneratedTypes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, m := range one {
		for range 300 {
			their := theirs(t, m)
			fill(r, their.ProtoReflect())
			want, err := proto.Marshal(their)
			if err != nil {
				t.Fatal(err)
			}
			ours := fresh(m)
			if err := ours.Read(want); err != nil {
				t.Fatalf("read %v: %v", their, err)
			}
			if got := ours.Append(nil); !bytes.Equal(got, want) {
				t.Fatalf("%s %v is written as\n%x, want\n%x", m.Name(), their, got, want)
			}
		}
	}
}

// Bytes that are no message, one of another kind or one with fields of a time to
// come are taken for the same, or refused, by both.
func agree(t testing.TB, m Message, data []byte) {
	t.Helper()
	their, ours := theirs(t, m), fresh(m)
	theirErr := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, their)
	err := ours.Read(data)
	if (err == nil) != (theirErr == nil) {
		t.Fatalf("%s of %x: %v, the generated type says %v", m.Name(), data, err, theirErr)
	}
	if err != nil {
		return
	}
	again := theirs(t, m)
	if err := proto.Unmarshal(ours.Append(nil), again); err != nil {
		t.Fatalf("%s of %x is written as what is no message: %v", m.Name(), data, err)
	}
	if !proto.Equal(again, their) {
		t.Fatalf("%s of %x is read as\n%v, the generated type has\n%v", m.Name(), data, again, their)
	}
}

func TestBytesOfAnyKindAreTakenAlike(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var all [][]byte
	for _, m := range one {
		for range 20 {
			their := theirs(t, m)
			fill(r, their.ProtoReflect())
			data, err := proto.Marshal(their)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data)
		}
	}
	for _, m := range one {
		for range 2000 {
			data := bytes.Clone(all[r.IntN(len(all))])
			for range r.IntN(3) {
				if len(data) > 0 {
					data[r.IntN(len(data))] = byte(r.Uint32())
				}
			}
			data = append(data, all[r.IntN(len(all))]...) // fields that come twice
			agree(t, m, data[:r.IntN(len(data)+1)])
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(uint8(0), []byte{0x0a, 0x01, 'a'})
	f.Fuzz(func(t *testing.T, which uint8, data []byte) { agree(t, one[int(which)%len(one)], data) })
}

func TestTimesAreSentAsTheyAre(t *testing.T) {
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1700000000, 999999999), time.Unix(-5, 5)} {
		want, err := proto.Marshal(timestamppb.New(at))
		if err != nil {
			t.Fatal(err)
		}
		if got := At(at).Append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s is sent as %x, want %x", at, got, want)
		}
	}
}

// The files are what the descriptors of the module's version of containerd say.
func TestMessagesAreUpToDate(t *testing.T) {
	top := t.TempDir()
	program, dir := top+"/generate", top+"/shim/message"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "no_grpc", "-o", program, "./generate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	generate := exec.CommandContext(t.Context(), program)
	generate.Dir = dir
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"messages.go", "list_test.go", "../../oci/cgroup/metrics1/messages.go", "../../oci/cgroup/metrics2/messages.go"} {
		want, err := os.ReadFile(dir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what ./generate writes (go generate ./shim/message), %v", name, err)
		}
	}
}
