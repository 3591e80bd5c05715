package daemon

import (
	"fmt"
	"strings"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// Kubernetes is what a containerd needs to serve a kubelet (the CRI).
type Kubernetes struct {
	// Pause names the image of a pod's own container, which is in the file
	// PauseFile.
	Pause, PauseFile string

	// Handlers is the part of containerd's configuration about the runtimes
	// that a pod can ask for, as an administrator writes it for 2.0 and later.
	Handlers string

	// Networks is the folder of CNI's configuration, Plugins that of its
	// programs.
	Networks, Plugins string
}

// namespace is where containerd has the daemon's containers.
func (d *Daemon) namespace() string {
	if d.config.Kubernetes != nil {
		return place.PodsNamespace
	}
	return d.Namespace
}

// configuration is the part of containerd's configuration for the CRI. Clients
// stream over loopback.
func (k *Kubernetes) configuration(c tools.Containerd) string {
	if c.Older("2.0") {
		// One plugin is all of it, and it wants the runtime that it takes for the
		// default to be in a file that has any.
		handlers := strings.ReplaceAll(k.Handlers, "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
		return fmt.Sprintf(`
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  sandbox_image = %q
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %q
  conf_dir = %q
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

%s`, k.Pause, k.Plugins, k.Networks, handlers)
	}
	programs := fmt.Sprintf("bin_dirs = [%q]", k.Plugins)
	if c.Older("2.3") {
		programs = fmt.Sprintf("bin_dir = %q", k.Plugins)
	}
	return fmt.Sprintf(`
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  cdi_spec_dirs = []
[plugins."io.containerd.cri.v1.runtime".cni]
  %s
  conf_dir = %q

%s`, k.Pause, programs, k.Networks, k.Handlers)
}
