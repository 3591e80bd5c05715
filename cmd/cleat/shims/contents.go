package shims

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/control/client"
)

// Inspect asks a shim for all that it knows.
func (s *Shim) Inspect(ctx context.Context, limit time.Duration) (inspection control.Inspection, err error) {
	return inspection, s.Ask(ctx, limit, func(ctx context.Context, c *client.Client) (err error) {
		inspection, err = c.Inspect(ctx)
		return err
	})
}

// Served are the ids of the containers that it says it serves.
func (s *Shim) Served(ctx context.Context, limit time.Duration) ([]string, error) {
	if s.Kind != Cleat {
		return nil, fmt.Errorf("it is %s", s.Make())
	}
	i, err := s.Inspect(ctx, limit)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range i.State.Containers.Served {
		ids = append(ids, c.ID)
	}
	return ids, nil
}

// containers are the ids of those that a shim serves: what it says, or, if it
// does not, what the bundles say of it that are beside its own.
func (s *Shim) containers(ctx context.Context, limit time.Duration) []string {
	if s.Info != nil {
		if ids, err := s.Served(ctx, limit); err == nil {
			return ids
		}
	}
	var ids []string
	for _, bundle := range s.Bundles() {
		ids = append(ids, filepath.Base(string(bundle)))
	}
	return ids
}

// Bundles are those that name the shim's socket, among the ones that are beside
// its own.
func (s *Shim) Bundles() []oci.Bundle {
	if s.Process.Cwd == "" || s.Socket == "" {
		return nil
	}
	var found []oci.Bundle
	for _, bundle := range BundlesIn(filepath.Dir(s.Process.Cwd)) {
		if Address(bundle) == s.Socket {
			found = append(found, bundle)
		}
	}
	return found
}

// BundlesIn are the bundles in a folder of containerd's, which has one for each
// namespace. Those that begin with a dot are being removed.
func BundlesIn(dir string) []oci.Bundle {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []oci.Bundle
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			found = append(found, oci.Bundle(filepath.Join(dir, entry.Name())))
		}
	}
	return found
}

// Address is the path of the socket of the shim that serves a bundle's container,
// empty if the bundle does not tell.
func Address(bundle oci.Bundle) string {
	address, err := bundle.ReadAddress()
	if err != nil || address == "" {
		// A member of a sandbox has only what containerd wrote.
		text, err := bundle.Read("bootstrap.json")
		if err != nil {
			return ""
		}
		var answer struct{ Address string }
		if json.Unmarshal(text, &answer) != nil {
			return ""
		}
		address = answer.Address
	}
	address = strings.TrimPrefix(address, "ttrpc+")
	return strings.TrimPrefix(strings.TrimSpace(address), "unix://")
}
