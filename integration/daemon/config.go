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
	verifier := `
  "io.containerd.image-verifier.v1.bindir",`
	if d.config.Kubernetes != nil {
		forKubernetes = ""
	}
	if c := d.config.Tools.Release; !c.Older("2.0") && c.Older("2.3") {
		verifier = "" // transfers need it
	}
	text := fmt.Appendf(nil, `version = %d
root = %q
state = %q
temp = %q
imports = []
disabled_plugins = [%s%s
  "io.containerd.nri.v1.nri",
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
%s
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
`,
		d.configVersion(), d.Path("root"), d.Path("state"), d.Path("ctemp"), forKubernetes, verifier, level, d.sockets(), d.Path("opt"))
	if k := d.config.Kubernetes; k != nil {
		text = append(text, k.configuration(d.config.Tools.Release)...)
	}
	return text
}

// configVersion is that of the newest form of the configuration that this
// containerd reads.
func (d *Daemon) configVersion() int {
	switch c := d.config.Tools.Release; {
	case c.Older("2.0"):
		return 2
	case c.Older("2.3"):
		return 3
	}
	return 4
}

// Sockets is the folder of the shims' sockets. Before 2.3 it cannot be chosen.
func (d *Daemon) Sockets() string {
	if d.configVersion() < 4 {
		return "/run/containerd/s"
	}
	return d.Place.Sockets()
}

// sockets is the part about sockets.
func (d *Daemon) sockets() string {
	if d.configVersion() < 4 {
		return fmt.Sprintf(`  address = ""
[grpc]
  address = %q
[ttrpc]
  address = %q
`, d.Address(), d.ttrpc)
	}
	return fmt.Sprintf(`
[plugins."io.containerd.server.v1.grpc"]
  address = %q
[plugins."io.containerd.server.v1.ttrpc"]
  address = %q
[plugins."io.containerd.server.v1.debug"]
  address = ""
[plugins."io.containerd.shim.v1.manager"]
  socket_dir = %q
`, d.Address(), d.ttrpc, d.Sockets())
}
