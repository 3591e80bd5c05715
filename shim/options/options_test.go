package options

import (
	"errors"
	"testing"

	"github.com/cleatrun/cleat/oci"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

var every = &runcoptions.Options{
	NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shims", IoUid: 1000, IoGid: 4294967295,
	BinaryName: "/opt/crun", Root: "/run/elsewhere", SystemdCgroup: true,
	CriuImagePath: "/images", CriuWorkPath: "/work",
	//lint:ignore SA1019 clients still set them
	TaskApiAddress: "ttrpc+unix:///a", TaskApiVersion: 3,
}

var everyResolved = oci.Options{
	NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shims", IOUID: 1000, IOGID: 4294967295,
	BinaryName: "/opt/crun", Root: "/run/elsewhere", SystemdCgroup: true,
	CriuImagePath: "/images", CriuWorkPath: "/work",
}

func TestEveryFieldOfRuncOptionsIsTaken(t *testing.T) {
	fromAny, err := anypb.New(every) // type.googleapis.com/ and the name
	if err != nil {
		t.Fatal(err)
	}
	fromTypeurl, err := typeurl.MarshalAny(every) // the name alone
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{fromAny.TypeUrl, fromTypeurl.GetTypeUrl()} {
		got, err := Resolve("containerd-shim-cleat-v2", url, fromAny.Value)
		if err != nil {
			t.Fatal(err)
		}
		if got != everyResolved {
			t.Errorf("%s:\n got %+v\nwant %+v", url, got, everyResolved)
		}
		if !Known(url) {
			t.Errorf("%s is not known", url)
		}
	}
}

func TestWhatIsNotKnownGivesDefaults(t *testing.T) {
	toml, err := proto.Marshal(&runtimeoptions.Options{TypeUrl: "x", ConfigBody: []byte("SystemdCgroup = true")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url string
		value     []byte
	}{
		{"nothing", "", nil},
		{"empty runc options", RuncOptions, nil},
		{"runtime options", "type.googleapis.com/" + RuntimeOptions, toml},
		{"runtime options of 1.x", oldRuntimeOptions, toml},
		{"another runtime's", "io.kata.Options", []byte{0xff, 0xff}},
	} {
		got, err := Resolve("/usr/bin/containerd-shim-cleat-v2", c.url, c.value)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if want := (oci.Options{BinaryName: "runc"}); got != want {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestBrokenRuncOptionsAreAnInvalidArgument(t *testing.T) {
	whole, err := proto.Marshal(every)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{
		"no field":        {0xff},
		"field cut off":   whole[:len(whole)-1],
		"text cut off":    {0x1a, 0x05, 'a'},
		"varint cut off":  {0x20, 0x80},
		"not UTF-8":       {0x1a, 0x01, 0xff},
		"unknown cut off": {0xfa, 0x01, 0x7f},
	} {
		if _, err := Resolve("", RuncOptions, value); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever bytes come: what the generated type takes is taken with the same
// result, and what it refuses is refused.
func FuzzRuncOptionsAsGenerated(f *testing.F) {
	whole, _ := proto.Marshal(every)
	f.Add(whole)
	f.Add([]byte{})
	f.Add([]byte{0x1a, 0x01, 0xff})
	f.Add([]byte{0x08, 0x02, 0x18, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		var want runcoptions.Options
		wantErr := proto.Unmarshal(b, &want)
		got, err := parseRunc(b)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, generated %v", err, wantErr)
		}
		if err != nil {
			return
		}
		expected := oci.Options{
			NoPivotRoot: want.NoPivotRoot, NoNewKeyring: want.NoNewKeyring, ShimCgroup: want.ShimCgroup,
			IOUID: want.IoUid, IOGID: want.IoGid, BinaryName: want.BinaryName, Root: want.Root,
			SystemdCgroup: want.SystemdCgroup, CriuImagePath: want.CriuImagePath, CriuWorkPath: want.CriuWorkPath,
		}
		if got != expected {
			t.Fatalf("got %+v\nwant %+v", got, expected)
		}
	})
}

func TestTheNameOfTheBinaryPicksTheRuntime(t *testing.T) {
	for _, c := range []struct{ invoked, runtime, binary string }{
		{"containerd-shim-cleat-v2", "io.containerd.cleat.v2", "runc"},
		{"/usr/local/bin/containerd-shim-runc-v2", "io.containerd.runc.v2", "runc"},
		{"./containerd-shim-crun-v2", "io.containerd.crun.v2", "crun"},
		{"containerd-shim-youki-v1", "io.containerd.youki.v1", "youki"},
		{"containerd-shim-crun-vm-v2", "io.containerd.crun-vm.v2", "crun-vm"},
		{"cleat-shim", "io.containerd.cleat.v2", "runc"},
		{"containerd-shim-v2", "io.containerd.cleat.v2", "runc"},
		{"containerd-shim--v2", "io.containerd.cleat.v2", "runc"},
		{"containerd-shim-crun-", "io.containerd.cleat.v2", "runc"},
		{"", "io.containerd.cleat.v2", "runc"},
	} {
		if got := RuntimeName(c.invoked); got != c.runtime {
			t.Errorf("RuntimeName(%q) = %q, want %q", c.invoked, got, c.runtime)
		}
		got, err := Resolve(c.invoked, "", nil)
		if err != nil || got.BinaryName != c.binary {
			t.Errorf("Resolve(%q) = %q, %v, want %q", c.invoked, got.BinaryName, err, c.binary)
		}
	}
	named, err := proto.Marshal(&runcoptions.Options{BinaryName: "kata-runtime"})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := Resolve("containerd-shim-crun-v2", RuncOptions, named); got.BinaryName != "kata-runtime" {
		t.Errorf("options say kata-runtime, the name crun: got %q", got.BinaryName)
	}
}
