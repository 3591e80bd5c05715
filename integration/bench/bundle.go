package main

// Bundles for OCI runtimes, shims and monitors that are run without containerd.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// bundle is a folder with the config.json that containerd would write there.
func (b *bench) bundle(id string, args ...string) (string, error) {
	root, err := b.rootfs()
	if err != nil {
		return "", err
	}
	spec, err := oci.GenerateSpec(b.context(), nil, &containers.Container{ID: id},
		oci.WithDefaultPathEnv, oci.WithRootFSPath(root), oci.WithRootFSReadonly(),
		oci.WithCgroup("/"+b.daemon.Namespace+"/"+id), oci.WithProcessArgs(args...))
	if err != nil {
		return "", fmt.Errorf("make a spec: %w", err)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	dir := b.daemon.Path("bundles", id)
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o711); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// rootfs is what the image has, as a folder.
func (b *bench) rootfs() (string, error) {
	root := b.daemon.Path("rootfs")
	if _, err := os.Stat(filepath.Join(root, "bin", "busybox")); err == nil {
		return root, nil
	}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	for _, applet := range []string{"sh", "sleep", "true"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return "", err
		}
	}
	text, err := os.ReadFile(b.tools.Busybox)
	if err != nil {
		return "", err
	}
	return root, os.WriteFile(filepath.Join(root, "bin", "busybox"), text, 0o755)
}
