package place

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// Leftovers tells, one line each, what of the place's containers exists at
// this moment on the host: processes, mounts, cgroups, shim sockets, FIFOs,
// bundles, temporary files and state of the OCI runtime. The processes whose
// pids are given do not count.
func (p *Place) Leftovers(expected ...int) []string {
	var found []string
	for _, process := range p.Processes() {
		if !slices.Contains(expected, process.PID) {
			found = append(found, process.String())
		}
	}
	for _, mount := range p.mounts() {
		found = append(found, "mount "+mount)
	}
	for _, cgroup := range p.cgroups() {
		// The one that carries the namespace's name is made by the first
		// container and outlives the last: no OCI runtime removes parents.
		if filepath.Base(cgroup) != p.Namespace {
			found = append(found, "cgroup "+cgroup)
		}
	}
	found = append(found, entries("runtime state", p.RuntimeState())...)
	for _, dir := range p.podStates() {
		found = append(found, "runtime state "+dir)
	}
	return append(found, p.files()...)
}

// mounts lists the mount points of the place, deepest first.
func (p *Place) mounts() []string {
	var points []string
	for _, dir := range []string{p.Dir, p.RuntimeState()} {
		list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return []string{fmt.Sprintf("(cannot tell: %v)", err)}
		}
		for _, m := range list {
			points = append(points, m.Mountpoint)
		}
	}
	slices.Sort(points)
	slices.Reverse(points)
	return points
}

// cgroups lists the cgroups that carry the namespace's name, or that and a hyphen
// and more, which are not of its containers, and all below them, in every
// hierarchy, children before parents.
func (p *Place) cgroups() []string {
	hierarchies, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return []string{fmt.Sprintf("(cannot tell: %v)", err)}
	}
	var list []string
	for _, h := range hierarchies {
		// A hierarchy that is mounted in two places is listed twice; that
		// does no harm.
		tops, _ := filepath.Glob(filepath.Join(h.Mountpoint, p.Namespace+"-*"))
		for _, top := range append(tops, filepath.Join(h.Mountpoint, p.Namespace)) {
			filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					list = append(list, path)
				}
				return nil
			})
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return slices.Compact(list)
}

// podStates lists what the OCI runtime keeps of those of the place's containers
// that are in PodsNamespace, which is nobody's own. The state of a container
// names its bundle.
func (p *Place) podStates() []string {
	states, _ := filepath.Glob(filepath.Join(runtimeState, PodsNamespace, "*"))
	return slices.DeleteFunc(states, func(dir string) bool {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		return !slices.ContainsFunc(files, func(file string) bool {
			// Other files are FIFOs and sockets.
			if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
				return false
			}
			text, err := os.ReadFile(file)
			return err == nil && bytes.Contains(text, []byte(p.Dir+"/"))
		})
	})
}

// files lists what containers and their shims leave in the place's folder.
func (p *Place) files() []string {
	found := entries("shim socket", p.Sockets())
	found = append(found, entries("temporary file", p.Path("tmp"))...)
	for _, pattern := range []string{
		// Where containerd keeps bundles and their working folders.
		"state/io.containerd.runtime.v2.task/*/*",
		"root/io.containerd.runtime.v2.task/*/*",
		"bundles/*",
		// What the CRI keeps of containers and of pods, their networks with them.
		"state/io.containerd.grpc.v1.cri/*/*",
		"root/io.containerd.grpc.v1.cri/*/*",
	} {
		bundles, _ := filepath.Glob(p.Path(pattern))
		for _, bundle := range bundles {
			found = append(found, "bundle "+bundle)
		}
	}
	// FIFOs wherever they are, and the folders that clients make for them.
	found = append(found, entries("FIFO folder", p.Fifos())...)
	filepath.WalkDir(p.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if entry.IsDir() && strings.HasPrefix(path, p.Path("root", "io.containerd.snapshotter")) {
			return fs.SkipDir // the image's files, not ours
		}
		if entry.Type()&fs.ModeNamedPipe != 0 {
			found = append(found, "FIFO "+path)
		}
		return nil
	})
	return found
}

// entries tells what is in a folder; one that does not exist is empty.
func entries(what, dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, entry := range list {
		found = append(found, what+" "+filepath.Join(dir, entry.Name()))
	}
	return found
}
