package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
)

const cgroupRoot = "/sys/fs/cgroup"

// Cgroups examines the hierarchy and its controllers.
func Cgroups() []Finding {
	f := &findings{area: "cgroups"}
	switch mode := cgroups.Mode(); mode {
	case cgroups.Unified:
		f.add("mode", OK, "v2", "")
		unified(f)
	case cgroups.Legacy, cgroups.Hybrid:
		f.add("mode", OK, "v1", "")
		legacy(f)
	default:
		f.add("mode", Bad, "no cgroups at "+cgroupRoot, "mount them: the OCI runtime needs them, and so do limits and statistics")
	}
	return f.all
}

// needed are the controllers of limits that clients ask for; without the first
// two kinds a container can take the host down.
var needed = []struct {
	name    string
	without Verdict
}{{"memory", Bad}, {"pids", Warn}, {"cpu", Warn}, {"cpuset", Note}, {"io", Note}}

func controllers(f *findings, have []string) {
	for _, c := range needed {
		if slices.Contains(have, c.name) || c.name == "io" && slices.Contains(have, "blkio") {
			f.add(c.name, OK, "there", "")
		} else {
			f.add(c.name, c.without, "not there", "enable the controller (kernel command line, or the parent's cgroup.subtree_control)")
		}
	}
}

func unified(f *findings) {
	controllers(f, strings.Fields(setting(filepath.Join(cgroupRoot, "cgroup.controllers"))))
	// The root has neither file: any other group tells.
	groups, _ := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if len(groups) == 0 {
		return
	}
	group := filepath.Dir(groups[0])
	for file, without := range map[string]string{
		"cgroup.kill":   "not there (Linux 5.14 has it): processes of a container are killed one by one",
		"cgroup.freeze": "not there (Linux 5.2 has it): containers cannot be paused",
	} {
		if _, err := os.Stat(filepath.Join(group, file)); err == nil {
			f.add(file, OK, "there", "")
		} else {
			f.add(file, Note, without, "")
		}
	}
	slices.SortStableFunc(f.all, func(a, b Finding) int { return strings.Compare(fileLast(a), fileLast(b)) })
}

// fileLast sorts files behind everything else, which stays as it is.
func fileLast(f Finding) string {
	if strings.HasPrefix(f.Name, "cgroup.") {
		return f.Name
	}
	return ""
}

func legacy(f *findings) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup"))
	if err != nil {
		f.add("controllers", Bad, fmt.Sprintf("cannot be told: %v", err), "")
		return
	}
	var have []string
	for _, m := range mounts {
		have = append(have, strings.Split(m.VFSOptions, ",")...)
	}
	controllers(f, have)
	for _, name := range []string{"freezer", "devices"} {
		if slices.Contains(have, name) {
			f.add(name, OK, "there", "")
		} else {
			f.add(name, Warn, "not there", "mount the hierarchy: pause and rules for devices need it")
		}
	}
}
