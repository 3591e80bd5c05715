package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/config"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/go-runc"
)

// runtimes are the OCI runtimes that are known by name.
var runtimes = []string{"runc", "crun", "youki", "runsc"}

// Runtimes finds the OCI runtimes of a search path, and what they say of
// themselves.
func Runtimes(ctx context.Context, path []string) []Finding {
	f := &findings{area: "OCI runtimes"}
	for _, name := range runtimes {
		file := lookup(path, name)
		if file == "" {
			continue
		}
		version, err := run(ctx, file, "--version")
		if err != nil {
			f.add(name, Warn, fmt.Sprintf("%s does not tell its version: %v", file, err), "containers that use it will fail")
			continue
		}
		f.add(name, OK, strings.Join([]string{file, firstLine(version), features(ctx, file)}, ", "), "")
	}
	if len(f.all) == 0 {
		f.add("none", Bad, "none of "+strings.Join(runtimes, ", ")+" is in "+strings.Join(path, ":"), "install one")
	}
	return f.all
}

// Configured are the OCI runtimes of a search path as the shim calls them, by
// their names and by the administrator's file. Those whose processes are none of
// this host's are left out.
func Configured(path []string) ([]oci.Options, error) {
	said, err := config.Read(options.Message{})
	if err != nil {
		return nil, err
	}
	file := said.File
	var found []oci.Options
	for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.AppendSeq(slices.Clone(runtimes), maps.Keys(file.Runtimes))))) {
		o := options.Resolve("", file, options.Config{Runtime: name}).Runtime
		if !filepath.IsAbs(o.BinaryName) {
			o.BinaryName = lookup(path, o.BinaryName)
		}
		if o.BinaryName != "" && o.Processes == oci.HostProcesses && name != "runsc" {
			found = append(found, o)
		}
	}
	return found, nil
}

// features are those that matter to the shim.
func features(ctx context.Context, file string) string {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	all, err := (&runc.Runc{Command: file}).Features(ctx)
	if err != nil {
		return "tells no features"
	}
	words := []string{"spec " + all.OCIVersionMax}
	if l := all.Linux; l != nil {
		if m := l.MountExtensions; m != nil && m.IDMap != nil && m.IDMap.Enabled != nil && *m.IDMap.Enabled {
			words = append(words, "idmapped mounts")
		}
		if s := l.Seccomp; s != nil && s.Enabled != nil && *s.Enabled {
			words = append(words, "seccomp")
		}
		if c := l.Cgroup; c != nil && c.Systemd != nil && *c.Systemd {
			words = append(words, "systemd cgroups")
		}
	}
	for name, value := range all.Annotations {
		if strings.HasSuffix(name, ".checkpoint.enabled") && value == "true" {
			words = append(words, "checkpoints")
		}
	}
	return strings.Join(words, ", ")
}

// CRIU looks for the program that checkpoints need.
func CRIU(ctx context.Context, path []string) []Finding {
	f := &findings{area: "criu"}
	file := lookup(path, "criu")
	if file == "" {
		f.add("criu", Note, "not installed: containers cannot be checkpointed or restored", "")
		return f.all
	}
	version, err := run(ctx, file, "--version")
	if err != nil {
		f.add("criu", Warn, fmt.Sprintf("%s does not tell its version: %v", file, err), "checkpoints will fail")
		return f.all
	}
	f.add("criu", Note, fmt.Sprintf("%s, %s; as it is there, stdout of containers passes through a pipe of the shim, for it cannot checkpoint a client's FIFO", file, firstLine(version)), "")
	return f.all
}

// lookup finds a program in the folders of a search path.
func lookup(path []string, name string) string {
	for _, dir := range path {
		file := filepath.Join(dir, name)
		if found, err := exec.LookPath(file); err == nil {
			return found
		}
	}
	return ""
}

// OwnPath are the folders of the environment's PATH.
func OwnPath() []string { return filepath.SplitList(os.Getenv("PATH")) }

// exists tells whether there is a file, or why that cannot be told.
func exists(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist", path)
	}
	return err
}
