package leftovers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/moby/sys/mountinfo"
)

// removeLimit bounds the wait for the kernel to let go of a cgroup.
const removeLimit = time.Second

// cgroups are the empty ones of containers that have no bundle, where containerd's
// clients make them when nothing else is said: /NAMESPACE/ID. Those of Kubernetes
// and systemd are theirs to remove.
func (s Search) cgroups(bundles []bundle) []Leftover {
	hierarchies, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil
	}
	var found []Leftover
	for _, namespace := range s.namespaces() {
		for _, h := range hierarchies {
			for _, id := range names(filepath.Join(h.Mountpoint, namespace)) {
				l := Leftover{Kind: Cgroup, Path: "/" + namespace + "/" + id, Namespace: namespace, ID: id, Why: "it is empty, and there is no such container"}
				switch {
				case bootstrap.ValidName(id) != nil, strings.HasSuffix(id, ".slice"), strings.HasSuffix(id, ".scope"):
				case slices.ContainsFunc(bundles, func(b bundle) bool { return b.namespace == namespace && b.id == id }):
				case slices.ContainsFunc(found, func(f Leftover) bool { return f.Path == l.Path }):
				case !s.empty(hierarchies, l.Path):
				default:
					found = append(found, l)
				}
			}
		}
	}
	return found
}

// namespaces are those of which there are bundles, or the one that is asked for.
func (s Search) namespaces() []string {
	if s.Namespace != "" {
		if bootstrap.ValidName(s.Namespace) != nil {
			return nil
		}
		return []string{s.Namespace}
	}
	var all []string
	for _, state := range s.States {
		all = append(all, names(filepath.Join(state, tasks))...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// empty tells whether a cgroup has no process in any hierarchy, nor one below it.
func (s Search) empty(hierarchies []*mountinfo.Info, path string) bool {
	for _, h := range hierarchies {
		empty := true
		filepath.WalkDir(filepath.Join(h.Mountpoint, path), func(dir string, entry os.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil
			}
			if text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(text) > 0 {
				empty = false
				return filepath.SkipAll
			}
			return nil
		})
		if !empty {
			return false
		}
	}
	return true
}

func removeCgroup(l Leftover) error { return cgroup.RemoveEmpty(l.Path, removeLimit) }
