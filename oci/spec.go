package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// maxSpec bounds config.json; the kernel's limit for what can reach a process
// as arguments and environment is smaller.
const maxSpec = 16 << 20

// Spec is the part of the runtime spec's config.json that the shim itself
// needs; the OCI runtime reads all of it.
type Spec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		CgroupsPath string `json:"cgroupsPath"`
		Namespaces  []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// ReadSpec reads the bundle's config.json as it is now; it may have changed
// since the shim was started.
func (b Bundle) ReadSpec() (Spec, error) {
	var s Spec
	data, err := ReadRegular(b.Path(configFile), maxSpec)
	if err != nil {
		return s, fmt.Errorf("read spec: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("parse spec %s: %w", b.Path(configFile), err)
	}
	return s, nil
}

// OwnPIDNamespace tells whether the container's processes die with its init:
// the kernel kills a PID namespace together with its first process.
func (s Spec) OwnPIDNamespace() bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == "pid" {
			return ns.Path == ""
		}
	}
	return false
}

// HasUserNamespace tells whether the container's root is another user outside.
func (s Spec) HasUserNamespace() bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == "user" {
			return true
		}
	}
	return false
}

// SystemdCgroup tells whether the cgroup path is one for systemd
// (slice:prefix:name, as runc documents it) on a host that systemd manages.
// Clients that pass no options to a shim say it by this form alone.
func (s Spec) SystemdCgroup() bool {
	path := s.Linux.CgroupsPath
	if strings.Count(path, ":") != 2 || strings.Contains(path, "/") {
		return false
	}
	info, err := os.Lstat(systemd)
	return err == nil && info.IsDir()
}

// systemd is a folder that exists exactly where systemd is the init; see
// sd_booted(3). Tests have their own.
var systemd = "/run/systemd/system"
