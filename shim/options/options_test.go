package options

import (
	"encoding/json"
	"errors"
	"reflect"
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
		m := Message{TypeURL: url, Value: fromAny.Value}
		client, err := m.Runc()
		if err != nil {
			t.Fatal(err)
		}
		got := Resolve("containerd-shim-cleat-v2", Config{}, client).Runtime
		if !reflect.DeepEqual(got, everyResolved) {
			t.Errorf("%s:\n got %+v\nwant %+v", url, got, everyResolved)
		}
		if !m.Known() {
			t.Errorf("%s is not known", url)
		}
	}
}

func TestWhatHoldsNothingForTheShimGivesDefaults(t *testing.T) {
	for _, m := range []Message{
		{},
		{TypeURL: RuncOptions},
		{TypeURL: RuntimeOptions},
		{TypeURL: "io.kata.Options", Value: []byte{0xff, 0xff}},
	} {
		client, err := m.Runc()
		path, body, tomlErr := m.TOML()
		if err != nil || tomlErr != nil || path != "" || body != nil {
			t.Errorf("%q: %v, %v; TOML in %q and %q", m.TypeURL, err, tomlErr, path, body)
		}
		got := Resolve("/usr/bin/containerd-shim-cleat-v2", Config{}, client).Runtime
		if want := (oci.Options{BinaryName: "runc"}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", m.TypeURL, got)
		}
	}
}

func TestTOMLIsFoundInRuntimeOptions(t *testing.T) {
	value, err := proto.Marshal(&runtimeoptions.Options{TypeUrl: "x", ConfigPath: "/p", ConfigBody: []byte("a = 1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{RuntimeOptions, "type.googleapis.com/" + RuntimeOptions, oldRuntimeOptions} {
		path, body, err := Message{url, value}.TOML()
		if path != "/p" || string(body) != "a = 1" || err != nil {
			t.Errorf("%s: %q, %q, %v", url, path, body, err)
		}
		if _, _, err := (Message{url, value[:len(value)-1]}).TOML(); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s cut off: %v", url, err)
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
		if _, err := (Message{RuncOptions, value}).Runc(); !errors.Is(err, errdefs.ErrInvalidArgument) {
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
		expected := Runc{
			NoPivotRoot: want.NoPivotRoot, NoNewKeyring: want.NoNewKeyring, ShimCgroup: want.ShimCgroup,
			IoUid: want.IoUid, IoGid: want.IoGid, BinaryName: Program{text{want.BinaryName}}, Root: AbsolutePath{text{want.Root}},
			CriuImagePath: want.CriuImagePath, CriuWorkPath: want.CriuWorkPath,
		}
		if want.SystemdCgroup {
			expected.SystemdCgroup = &want.SystemdCgroup
		}
		if !reflect.DeepEqual(got, expected) {
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
		if got := Resolve(c.invoked, Config{}, Config{}).Runtime.BinaryName; got != c.binary {
			t.Errorf("Resolve(%q) = %q, want %q", c.invoked, got, c.binary)
		}
	}
}

// fromJSON is how the daemon gets what a file says.
func fromJSON(t *testing.T, said string) (c Config) {
	t.Helper()
	if err := json.Unmarshal([]byte(said), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// built-in < file < client, value by value.
func TestEachLevelGoesOverTheOneBelow(t *testing.T) {
	file := fromJSON(t, `{
		"runtime": "crun", "group": "namespace", "stdio": "copy", "socket_dir": "/s",
		"annotations": ["stdio"], "limits": {"drain": "3s", "kill": "1s"},
		"runtimes": {
			"runc": {"root": "/file", "args": ["--debug"], "systemd_cgroup": true},
			"crun": {"path": "/opt/crun", "env": {"B": "2", "A": "1"}, "log_format": "none", "signals": "runtime", "processes": "elsewhere"},
			"stock": {"log_format": "json", "signals": "pidfd", "processes": "host"}}}`)
	client := func(said string) Config { return fromJSON(t, said) }
	crun := oci.Options{BinaryName: "/opt/crun", Env: []string{"A=1", "B=2"}, LogFormat: oci.NoLog, Signals: oci.RuntimeSignals, Processes: oci.ElsewhereProcesses}
	for _, c := range []struct {
		what, invoked string
		client        Config
		want          oci.Options
	}{
		{"own name: the file's runtime", "containerd-shim-cleat-v2", Config{}, crun},
		{"another name: the file does not say which", "containerd-shim-runc-v2", Config{},
			oci.Options{BinaryName: "runc", Root: "/file", Args: []string{"--debug"}, SystemdCgroup: true}},
		{"a name without a table", "containerd-shim-youki-v2", Config{}, oci.Options{BinaryName: "youki"}},
		{"what is built in, said", "containerd-shim-stock-v2", Config{}, oci.Options{BinaryName: "stock"}},
		{"the client's name finds the table", "containerd-shim-youki-v2", client(`{"runc": {"BinaryName": "crun"}}`), crun},
		{"as does its runtime", "containerd-shim-youki-v2", client(`{"runtime": "crun"}`), crun},
		{"the client's path finds none", "containerd-shim-cleat-v2", client(`{"runc": {"BinaryName": "/usr/bin/crun"}}`), oci.Options{BinaryName: "/usr/bin/crun"}},
		{"the client's values go over the file's", "containerd-shim-runc-v2", client(`{"runc": {"Root": "/client", "SystemdCgroup": false}}`),
			oci.Options{BinaryName: "runc", Root: "/client", Args: []string{"--debug"}}},
		{"as do those of its tables", "containerd-shim-runc-v2", client(`{"runtimes": {"runc": {"args": [], "env": {"X": ""}, "path": "/r"}}}`),
			oci.Options{BinaryName: "/r", Root: "/file", Args: []string{}, Env: []string{"X="}, SystemdCgroup: true}},
	} {
		if got := Resolve(c.invoked, file, c.client).Runtime; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.what, got, c.want)
		}
	}
	got := Resolve("", file, client(`{"group": "pod", "stdio": "direct", "annotations": [], "limits": {"drain": "4s", "launch": "5s"}}`))
	want := fromJSON(t, `{"runtime": "crun", "group": "pod", "stdio": "direct", "socket_dir": "/s", "annotations": [], "limits": {"drain": "4s", "kill": "1s", "launch": "5s"}}`)
	want.Runtimes = file.Runtimes
	if !reflect.DeepEqual(got.Config, want) {
		t.Errorf("got  %+v\nwant %+v", got.Config, want)
	}
}

func TestGroupIsWhoSharesAShim(t *testing.T) {
	annotations := map[string]string{"io.kubernetes.cri.sandbox-id": "pod", "team": "blue"}
	for group, want := range map[string]string{
		`""`: "pod", `"pod"`: "pod", `"container"`: "id", `"namespace"`: "*", `"annotation:team"`: "blue", `"annotation:other"`: "id",
	} {
		var c Config
		if group != `""` {
			c = fromJSON(t, `{"group": `+group+`}`)
		}
		if got := c.Group.Of("id", annotations); got != want {
			t.Errorf("%s: %s, want %s", group, got, want)
		}
	}
	annotations["io.containerd.runc.v2.group"] = "first"
	if got := (Group{}).Of("id", annotations); got != "first" {
		t.Errorf("%s, want that of containerd's own shim first", got)
	}
}

// What start keeps in a bundle is what the daemon reads there.
func TestWhatIsKeptIsRead(t *testing.T) {
	bundle := oci.Bundle(t.TempDir())
	if _, found, err := Kept(bundle); found || err != nil {
		t.Errorf("nothing kept: %t, %v", found, err)
	}
	want := Said{
		File:    fromJSON(t, `{"runtimes": {"crun": {"path": "/opt/crun", "systemd_cgroup": false}}, "annotations": [], "limits": {"drain": "0s"}}`),
		Message: Message{TypeURL: RuntimeOptions, Value: []byte{1, 0, 255}},
		Client:  fromJSON(t, `{"runc": {"BinaryName": "/b", "IoUid": 7}, "group": "annotation:x"}`),
	}
	if err := want.Keep(bundle); err != nil {
		t.Fatal(err)
	}
	if got, found, err := Kept(bundle); err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %t, %v\nwant %+v", got, found, err, want)
	}
	for range 2 {
		if err := Forget(bundle); err != nil {
			t.Error(err)
		}
	}
	if err := bundle.Replace("said.json", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Kept(bundle); err == nil {
		t.Error("what is cut off is read")
	}
}
