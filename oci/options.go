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
// bundle can be read by the shim of either make; the last ones are only ours.
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

	// Args come before the runtime's command, after the shim's own.
	Args []string `json:"args,omitempty"`
	// Env are variables KEY=VALUE over those that the shim has.
	Env       []string  `json:"env,omitempty"`
	LogFormat LogFormat `json:"log_format,omitempty"`
	Signals   Signals   `json:"signals,omitempty"`
	Processes Processes `json:"processes,omitempty"`
}

// LogFormat is how a runtime writes the log that --log names.
type LogFormat string

// The formats. NoLog is a runtime that does not know --log: what it has to say
// is on its stderr.
const (
	JSONLog LogFormat = "" // as runc, crun and youki do
	TextLog LogFormat = "text"
	NoLog   LogFormat = "none"
)

// Signals is how signals are sent to the init process of a container.
type Signals string

// The ways. By its pidfd costs no call to the runtime.
const (
	PidfdSignals   Signals = ""
	RuntimeSignals Signals = "runtime"
)

// Processes is where those of a container are.
type Processes string

// The places. Those that are not on this host can be waited for, signalled,
// listed and measured by the runtime only.
const (
	HostProcesses      Processes = ""
	ElsewhereProcesses Processes = "elsewhere"
)

// Mount is one mount of a root filesystem, as containerd's snapshotters
// describe it.
type Mount struct {
	Type, Source string
	// Target is a path below the root filesystem, or empty for itself.
	Target  string   `json:",omitempty"`
	Options []string `json:",omitempty"`
}
