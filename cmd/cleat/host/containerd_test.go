package host

import (
	"testing"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
)

// The CRI's runtimes are read from the configurations of containerd 1 and 2.
func TestHandlersOfContainerdsConfiguration(t *testing.T) {
	for name, text := range map[string]string{
		"version 2": `version = 2
state = "/run/other"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.shell]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = "/bin/sh"
`,
		"version 3": `version = 3
state = "/run/other"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.shell]
  runtime_type = "/bin/sh"
`,
	} {
		c := Containerd{State: defaultState, Path: []string{t.TempDir()}}
		if err := c.parse(text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.State != "/run/other" || len(c.Handlers) != 2 {
			t.Errorf("%s: %+v", name, c)
		}
		if h := c.Handlers["runc"]; h.Type != "io.containerd.runc.v2" || h.File != "" {
			t.Errorf("%s: a shim that is not there: %+v", name, h)
		}
		if h := c.Handlers["shell"]; h.File != "/bin/sh" || h.Kind != shims.Other {
			t.Errorf("%s: a handler with a path: %+v", name, h)
		}
	}
	if err := (&Containerd{}).parse("state = "); err == nil {
		t.Error("half a configuration is one")
	}
}

func TestOptionsOfContainerdsCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"containerd"}, ""},
		{[]string{"containerd", "-c", "/a"}, "/a"},
		{[]string{"containerd", "--log-level", "debug", "--config=/b"}, "/b"},
		{[]string{"containerd", "--config"}, ""},
	} {
		if got := option(c.args, "c", "config"); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}
