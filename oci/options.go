// Package oci has the words of the OCI runtime spec that the shim needs: the
// bundle and what is kept in it, the part of the spec that the shim reads, the
// options by which a runtime is called. What deals with the host is in packages
// of its own: driver calls runtimes, rootfs mounts, child owns processes, cgroup
// reads cgroups. This one is small because the shim's short-lived actions need
// it before anything else of the program is initialised.
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

// Mount is one mount of a root filesystem, as containerd's snapshotters
// describe it.
type Mount struct {
	Type, Source string
	// Target is a path below the root filesystem, or empty for itself.
	Target  string   `json:",omitempty"`
	Options []string `json:",omitempty"`
}
