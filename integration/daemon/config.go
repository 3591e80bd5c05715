package daemon

import "fmt"

// configuration is containerd's configuration: everything in the place, and
// only the plugins that are needed.
func (d *Daemon) configuration() []byte {
	level := "info"
	if d.config.Debug {
		level = "debug"
	}
	forKubernetes := `
  "io.containerd.cri.v1.images",
  "io.containerd.cri.v1.runtime",
  "io.containerd.grpc.v1.cri",
  "io.containerd.podsandbox.controller.v1.podsandbox",`
	if d.config.Kubernetes != nil {
		forKubernetes = ""
	}
	text := fmt.Appendf(nil, `version = 4
root = %q
state = %q
temp = %q
imports = []
disabled_plugins = [%s
  "io.containerd.nri.v1.nri",
  "io.containerd.image-verifier.v1.bindir",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[debug]
  level = %q

[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.server.v1.debug"]
  address = ""
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = %q
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
`,
		d.Path("root"), d.Path("state"), d.Path("ctemp"), forKubernetes, level,
		d.Address(), d.ttrpc, d.Path("opt"), d.Sockets())
	if k := d.config.Kubernetes; k != nil {
		text = append(text, k.configuration()...)
	}
	return text
}
