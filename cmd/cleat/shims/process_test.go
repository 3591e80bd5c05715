package shims

import (
	"strings"
	"testing"
)

// Which command lines are those of shims that serve containers.
func TestCommandLinesOfShims(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/local/bin/containerd-shim-cleat-v2 -namespace k8s.io -id web -address /run/containerd/containerd.sock":   "k8s.io/web",
		"containerd-shim-runc-v2 -namespace moby -id 4f -address /run/containerd/containerd.sock -debug":               "moby/4f",
		"/opt/named-otherwise -namespace default -id a -address /c.sock":                                               "default/a",
		"containerd-shim-kata-v2 -namespace k8s.io -address /c.sock -publish-binary /usr/bin/containerd -id b -debug":  "k8s.io/b",
		"containerd-shim-runsc-v1 --namespace=k8s.io --address=/c.sock":                                                "k8s.io/",
		"containerd-shim-cleat-v2 -namespace default -address /c.sock -publish-binary /usr/bin/containerd -id a start": "",
		"containerd-shim-cleat-v2 -namespace default -address /c.sock -id a -bundle /run/b delete":                     "",
		"containerd-shim-cleat-v2 -upgrade-try":                                                                        "",
		"containerd-shim-cleat-v2 -info":                                                                               "",
		"containerd-shim-cleat-v2 -v":                                                                                  "",
		"containerd-shim-cleat-v2 -namespace de\x1b[31mfault -id a -address /c.sock":                                   "",
		"containerd-shim-cleat-v2 -namespace default -id ../a -address /c.sock":                                        "",
		"containerd-shim-cleat-v2":                                                            "",
		"containerd --config /etc/containerd/config.toml":                                     "",
		"some-client -namespace default -id a":                                                "",
		"containerd-shim-cleat-v2 -namespace":                                                 "",
		"runc --root /run/runc state a":                                                       "",
		"grep containerd-shim-cleat-v2 -namespace x -id y -address z":                         "",
		"containerd-shim-cleat-v2 -namespace default -id a -address /c.sock -socket /run/s/x": "default/a",
	} {
		namespace, id, ok := daemon(strings.Fields(line))
		got := ""
		if ok {
			got = namespace + "/" + id
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if _, _, ok := daemon(nil); ok {
		t.Error("a process without a command line is a shim")
	}
}

// What an id stands for: the whole of a name before a pid, and a pid before the
// beginning of a name.
func TestIDs(t *testing.T) {
	shim := func(namespace, id string, pid int) *Shim { return &Shim{Namespace: namespace, ID: id, PID: pid} }
	pod := shim("k8s.io", "4711aa", 20)
	candidates := []Match{
		{Shim: shim("default", "web", 4711)}, {Shim: shim("k8s.io", "web", 11)}, {Shim: shim("default", "web2", 12)},
		{Shim: pod}, {Shim: pod, Container: "sidecar"}, {Shim: shim("default", "20", 30)}, {Shim: shim("default", "", 40)},
	}
	for id, want := range map[string]string{
		"web2":    "default/web2",
		"side":    "k8s.io/sidecar",
		"4711":    "default/web", // the process, not the pod that begins so
		"4711a":   "k8s.io/4711aa",
		"20":      "default/20", // the container, not the process
		"40":      "default/process 40",
		"web":     `"web" stands for 2: default/web, k8s.io/web; -n chooses a namespace`,
		"we":      `"we" stands for 3: default/web, default/web2, k8s.io/web; -n chooses a namespace`,
		"nothing": `no shim or container has the id "nothing", begins so, or is that process`,
		"":        "an empty id stands for nothing",
	} {
		m, err := Host{}.choose(candidates, id)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = m.Name()
		}
		if got != want {
			t.Errorf("%q is %s, want %s", id, got, want)
		}
	}
}
