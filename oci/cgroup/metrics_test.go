package cgroup

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
	"github.com/cleatrun/cleat/oci/cgroup/metrics2"
	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"google.golang.org/protobuf/proto"
)

// fill gives the fields of one of our messages values by chance, many their zero
// ones, and those of the generated type the same.
func fill(t testing.TB, r *rand.Rand, ours, theirs reflect.Value) {
	t.Helper()
	for i := range ours.NumField() {
		field, other := ours.Field(i), theirs.FieldByName(strings.TrimSuffix(ours.Type().Field(i).Name, "_"))
		if !other.IsValid() {
			t.Fatalf("%s has no field %s", theirs.Type(), ours.Type().Field(i).Name)
		}
		if r.IntN(4) == 0 {
			continue
		}
		switch v := field.Addr().Interface().(type) {
		case *uint64:
			*v = r.Uint64() >> r.IntN(65)
		case *uint32:
			*v = uint32(r.Uint64() >> r.IntN(65))
		case *string:
			*v = strings.Repeat("aé\x00😀", r.IntN(40))
		case *float64:
			*v = []float64{0, math.Copysign(0, -1), 1.25, math.Inf(1), math.NaN(), math.Float64frombits(r.Uint64())}[r.IntN(6)]
		case *[]uint64:
			for range r.IntN(80) {
				*v = append(*v, r.Uint64()>>r.IntN(65))
			}
		default:
			if field.Kind() == reflect.Pointer {
				field.Set(reflect.New(field.Type().Elem()))
				other.Set(reflect.New(other.Type().Elem()))
				fill(t, r, field.Elem(), other.Elem())
				continue
			}
			for n := range r.IntN(5) {
				field.Set(reflect.Append(field, reflect.New(field.Type().Elem().Elem())))
				other.Set(reflect.Append(other, reflect.New(other.Type().Elem().Elem())))
				fill(t, r, field.Index(n).Elem(), other.Index(n).Elem())
			}
			continue
		}
		other.Set(field)
	}
}

func mustBeEncodedAlike(t testing.TB, r *rand.Rand) {
	t.Helper()
	for name, pair := range map[string]struct {
		ours   interface{ Append([]byte) []byte }
		theirs proto.Message
	}{
		metrics1.Name: {new(metrics1.Metrics), new(stats1.Metrics)},
		metrics2.Name: {new(metrics2.Metrics), new(stats2.Metrics)},
	} {
		fill(t, r, reflect.ValueOf(pair.ours).Elem(), reflect.ValueOf(pair.theirs).Elem())
		if want := string(pair.theirs.ProtoReflect().Descriptor().FullName()); name != want {
			t.Fatalf("%s, want %s", name, want)
		}
		if got, want := pair.ours.Append([]byte("before")), append([]byte("before"), encode(t, pair.theirs)...); !bytes.Equal(got, want) {
			t.Fatalf("%s %v is written as\n%x, want\n%x", name, pair.theirs, got, want)
		}
	}
}

func TestMetricsAreThoseOfTheGeneratedTypes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		mustBeEncodedAlike(t, r)
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { mustBeEncodedAlike(t, rand.New(rand.NewPCG(a, b))) })
}
