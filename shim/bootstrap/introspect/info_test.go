package introspect

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) { built.Main(m) }

// info runs `-info` as containerd does, with dir as all of PATH that matters.
func info(t *testing.T, shim, dir string, options *anypb.Any) (*types.RuntimeInfo, string) {
	t.Helper()
	stdin, err := proto.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shim, "-info")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "PATH="+dir+":/usr/bin:/bin")
	if status := built.Run(t, cmd, 15*time.Second); status != 0 {
		if stdout.Len() > 0 || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("failed with stdout %q, stderr %q", stdout.String(), stderr.String())
		}
		return nil, stderr.String()
	}
	if unknown := strings.Contains(options.GetTypeUrl(), "unknown"); strings.Contains(stderr.String(), "not for this shim") != unknown || !unknown && stderr.Len() > 0 {
		t.Errorf("said %q", stderr.String())
	}
	r := &types.RuntimeInfo{}
	if err := proto.Unmarshal(stdout.Bytes(), r); err != nil {
		t.Fatal(err)
	}
	return r, ""
}

func runtime(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestInfoTellsTheFeaturesOfRunc(t *testing.T) {
	runc := built.Runc(t)
	for name, options := range map[string]*anypb.Any{
		"nothing":         nil,
		"runc options":    pack(t, &runcoptions.Options{BinaryName: runc, SystemdCgroup: true}),
		"runtime options": pack(t, &runtimeoptions.Options{TypeUrl: "x", ConfigBody: []byte("stdio = 'copy'")}),
		"another type":    {TypeUrl: "example.com/unknown.Options", Value: []byte{0xff}},
	} {
		r, failure := info(t, built.Shim(t), filepath.Dir(runc), options)
		if r == nil {
			t.Errorf("%s: %s", name, failure)
			continue
		}
		if r.Name != "io.containerd.cleat.v2" || r.Version.GetVersion() == "" {
			t.Errorf("%s: name %q, version %v", name, r.Name, r.Version)
		}
		if !proto.Equal(r.Options, options) {
			t.Errorf("%s: options %v", name, r.Options)
		}
		if got := r.Features.GetTypeUrl(); got != "types.containerd.io/opencontainers/runtime-spec/1/features/Features" {
			t.Errorf("%s: type of the features %q", name, got)
		}
		var f features.Features
		if err := json.Unmarshal(r.Features.GetValue(), &f); err != nil || !slices.Contains(f.MountOptions, "rro") {
			t.Errorf("%s: features %+v, %v", name, f, err)
		}
	}
}

func TestInfoIsOfTheRuntimeTheNameStandsFor(t *testing.T) {
	dir := runtime(t, "crun", `[ "$1" = features ] && echo '{"ociVersionMin":"1.0.0","mountOptions":["ofcrun"]}'`)
	link := filepath.Join(t.TempDir(), "containerd-shim-crun-v2")
	if err := os.Symlink(built.Shim(t), link); err != nil {
		t.Fatal(err)
	}
	r, failure := info(t, link, dir, nil)
	if r == nil {
		t.Fatal(failure)
	}
	if r.Name != "io.containerd.crun.v2" || !strings.Contains(string(r.Features.GetValue()), "ofcrun") {
		t.Errorf("got %v", r)
	}
}

func TestARuntimeWithoutFeaturesHasNone(t *testing.T) {
	for name, script := range map[string]string{
		"no such command": "echo unknown command >&2; exit 1",
		"help instead":    "echo usage; exit 0",
	} {
		r, failure := info(t, built.Shim(t), runtime(t, "runc", script), nil)
		if r == nil || r.Features != nil || r.Name == "" {
			t.Errorf("%s: %v %s", name, r, failure)
		}
	}
}

func TestInfoNamesWhatIsWrong(t *testing.T) {
	absent := pack(t, &runcoptions.Options{BinaryName: "/no/such/runtime"})
	if _, failure := info(t, built.Shim(t), "", absent); !strings.Contains(failure, `"/no/such/runtime"`) {
		t.Errorf("absent: %q", failure)
	}
	if _, failure := info(t, built.Shim(t), "", &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}); !strings.Contains(failure, "containerd.runc.v1.Options") {
		t.Errorf("broken: %q", failure)
	}
	begin := time.Now()
	_, failure := info(t, built.Shim(t), runtime(t, "runc", "exec sleep 60"), nil)
	if !strings.Contains(failure, "no answer within") || time.Since(begin) > featuresLimit+5*time.Second {
		t.Errorf("hanging: %q after %s", failure, time.Since(begin))
	}
}
