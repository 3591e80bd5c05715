package bootstrap

import (
	"testing"

	"github.com/cleatrun/cleat/shim/options"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Whatever bytes come: what the generated types take is read the same, and what
// they refuse is refused.
func FuzzBootstrapParamsAsGenerated(f *testing.F) {
	dir := "/run/s"
	full := &bootapi.BootstrapParams{
		InstanceID: "c1", Namespace: "ns", LogLevel: bootapi.LogLevel_LOG_LEVEL_DEBUG, ContainerdVersion: "v",
		ContainerdTtrpcAddress: "t", ContainerdGrpcAddress: "g", ContainerdBinary: "b", SocketDir: &dir,
	}
	for _, m := range []proto.Message{&bootapi.BootstrapResult{}, &runcoptions.Options{BinaryName: "x"}, &runcoptions.Options{Root: "y"}} {
		if err := full.AddExtension(m); err != nil {
			f.Fatal(err)
		}
	}
	seed, err := proto.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-3])
	f.Add([]byte{})
	f.Add([]byte{0x42, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var want bootapi.BootstrapParams
		wantErr := proto.Unmarshal(b, &want)
		got, err := parseBootstrapParams(b)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, generated %v", err, wantErr)
		}
		if err != nil {
			return
		}
		expected := bootstrapParams{id: want.InstanceID, namespace: want.Namespace, beyondAny: got.beyondAny}
		expected.debug = want.LogLevel <= bootapi.LogLevel_LOG_LEVEL_DEBUG
		expected.ttrpcAddress, expected.grpcAddress, expected.socketDir = want.ContainerdTtrpcAddress, want.ContainerdGrpcAddress, want.GetSocketDir()
		for _, e := range want.Extensions {
			if (options.Message{TypeURL: e.GetValue().GetTypeUrl()}).Known() {
				expected.options.TypeURL, expected.options.Value = e.Value.TypeUrl, e.Value.Value
				break
			}
		}
		if string(got.options.Value) != string(expected.options.Value) {
			t.Fatalf("options %x, want %x", got.options.Value, expected.options.Value)
		}
		got.options.Value, expected.options.Value = nil, nil
		if got.id != expected.id || got.namespace != expected.namespace || got.debug != expected.debug ||
			got.ttrpcAddress != expected.ttrpcAddress || got.grpcAddress != expected.grpcAddress ||
			got.socketDir != expected.socketDir || got.options.TypeURL != expected.options.TypeURL {
			t.Fatalf("got  %+v\nwant %+v", got, expected)
		}
	})
}

// Options alone parse as BootstrapParams too; taken for them, a container of
// an older containerd would be started under no name.
func TestOptionsAloneAreNotTakenForBootstrapParams(t *testing.T) {
	a, err := anypb.New(&runcoptions.Options{Root: "/r"})
	if err != nil {
		t.Fatal(err)
	}
	input, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(input, &bootapi.BootstrapParams{}); err != nil {
		t.Fatalf("the trap is gone: %v", err)
	}
	p, err := Call{ID: "c1", Namespace: "ns"}.parseParams(input)
	if err != nil {
		t.Fatal(err)
	}
	if !p.legacy || p.options.TypeURL != a.TypeUrl || string(p.options.Value) != string(a.Value) {
		t.Errorf("got %+v", p)
	}
}
