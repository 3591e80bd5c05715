// Package oci knows the OCI runtime (runc, crun, …) and the bundle it works
// on: how a runtime is called, which files a bundle holds, where a root
// filesystem is mounted. It knows no protobuf and nothing of containerd's RPCs.
package oci

// DefaultRoot is where runtimes keep their state unless options say otherwise;
// containerd's own shim uses the same place. The namespace is appended.
const DefaultRoot = "/run/containerd/runc"

// Options say how an OCI runtime is to be called for one container. The JSON
// names are those of containerd.runc.v1.Options, so that options.json in a
// bundle can be read by the shim of either make.
type Options struct {
	NoPivotRoot   bool   `json:"no_pivot_root,omitempty"`
	NoNewKeyring  bool   `json:"no_new_keyring,omitempty"`
	ShimCgroup    string `json:"shim_cgroup,omitempty"`
	IOUID         uint32 `json:"io_uid,omitempty"`
	IOGID         uint32 `json:"io_gid,omitempty"`
	BinaryName    string `json:"binary_name,omitempty"`
	Root          string `json:"root,omitempty"`
	SystemdCgroup bool   `json:"systemd_cgroup,omitempty"`
	CriuImagePath string `json:"criu_image_path,omitempty"`
	CriuWorkPath  string `json:"criu_work_path,omitempty"`
}
