package daemon

import (
	"fmt"

	"github.com/cleatrun/cleat/integration/place"
)

// Kubernetes is what a containerd needs to serve a kubelet (the CRI).
type Kubernetes struct {
	// Pause names the image of a pod's own container, which is in the file
	// PauseFile.
	Pause, PauseFile string

	// Handlers is the part of containerd's configuration about the runtimes
	// that a pod can ask for, as an administrator writes it.
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
func (k *Kubernetes) configuration() string {
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
  bin_dirs = [%q]
  conf_dir = %q

%s`, k.Pause, k.Plugins, k.Networks, k.Handlers)
}
