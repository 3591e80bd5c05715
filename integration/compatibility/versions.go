package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
	"github.com/cleatrun/cleat/integration/tools"
)

// versions are what programs say of themselves, by the names of the releases of
// containerd and of the OCI runtimes, and nerdctl's. The tests have made all of
// them.
func versions(ctx context.Context) (map[string]string, error) {
	built, err := tools.Ensure(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, c := range tools.Containerds {
		// containerd github.com/containerd/containerd v2.4.2+unknown REVISION
		field, err := ask(ctx, built.With(c).Containerd)
		if err != nil {
			return nil, err
		}
		version, _, _ := strings.Cut(strings.TrimPrefix(field, "v"), "+")
		version, _, _ = strings.Cut(version, "~")
		names[c.Name] = version
		if c.Debian != "" {
			names[c.Name] += " of Debian " + c.Debian
		}
		names["CRI "+c.Name] = "CRI of containerd " + names[c.Name]
		names["CRI "+c.Name+" own"] = names["CRI "+c.Name] + ", with the shim of that containerd"
	}
	for _, oci := range walk.Runtimes {
		program := built.Runc
		if oci != "runc" {
			program = filepath.Join(built.Dir, "runtimes", oci)
		}
		version, err := ask(ctx, program) // runc version 1.5.2
		if err != nil {
			return nil, err
		}
		version, _, _ = strings.Cut(version, "+")
		names[oci], _, _ = strings.Cut(oci, "-")
		names[oci] += " " + version
	}
	version, err := ask(ctx, filepath.Join(built.Dir, "nerdctl")) // nerdctl version 2.2.1
	if err != nil {
		return nil, err
	}
	names["nerdctl"] = "nerdctl " + version
	names["ctr of an ordinary user"] = "ctr of containerd " + names[tools.Newest.Name] + ", as an ordinary user"
	return names, nil
}

// ask is the third word of what a program says of its version.
func ask(ctx context.Context, program string) (string, error) {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	field := strings.Fields(first)
	if len(field) < 3 {
		return "", fmt.Errorf("ask %s for its version: it says %q", program, first)
	}
	return field[2], nil
}
