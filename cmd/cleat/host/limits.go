package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// nearly is the share of a limit from which on it is warned of.
const nearly = 0.8

// Limits examines those that shims and containers run into.
func Limits() []Finding {
	f := &findings{area: "limits"}
	processes(f)
	files(f)
	if size, err := strconv.Atoi(setting("/proc/sys/fs/pipe-max-size")); err == nil {
		f.add("fs.pipe-max-size", verdict(size >= 64<<10), strconv.Itoa(size), "pipes of output are smaller than usual, and a container waits for its reader more often")
	}
	soft, _ := strconv.Atoi(setting("/proc/sys/fs/pipe-user-pages-soft"))
	hard, _ := strconv.Atoi(setting("/proc/sys/fs/pipe-user-pages-hard"))
	found := fmt.Sprintf("soft %d, hard %d (0 is none)", soft, hard)
	switch {
	case os.Geteuid() == 0:
		f.add("fs.pipe-user-pages", OK, found+", not for root", "")
	default:
		f.add("fs.pipe-user-pages", Note, found+": beyond it, pipes hold one or two pages", "")
	}
	if n, err := strconv.Atoi(setting("/proc/sys/net/core/somaxconn")); err == nil {
		f.add("net.core.somaxconn", verdict(n >= 128), strconv.Itoa(n), "many starts at once in one pod may be refused")
	}
	return f.all
}

func verdict(good bool) Verdict {
	if good {
		return OK
	}
	return Warn
}

// processes compares how many there are with how many there can be.
func processes(f *findings) {
	most, err := strconv.Atoi(setting("/proc/sys/kernel/pid_max"))
	if err != nil {
		return
	}
	if threads, err := strconv.Atoi(setting("/proc/sys/kernel/threads-max")); err == nil {
		most = min(most, threads)
	}
	// The fourth field of /proc/loadavg is RUNNING/ALL.
	fields := strings.Fields(setting("/proc/loadavg"))
	if len(fields) < 4 {
		return
	}
	_, all, _ := strings.Cut(fields[3], "/")
	now, _ := strconv.Atoi(all)
	f.add("processes and threads", verdict(float64(now) < nearly*float64(most)), fmt.Sprintf("%d of %d", now, most), "raise kernel.pid_max or kernel.threads-max")
}

// files compares how many are open with how many can be.
func files(f *findings) {
	fields := strings.Fields(setting("/proc/sys/fs/file-nr"))
	if len(fields) < 3 {
		return
	}
	now, _ := strconv.ParseFloat(fields[0], 64)
	most, _ := strconv.ParseFloat(fields[2], 64)
	found := fields[0] + " open"
	if most < 1e15 {
		found += " of " + fields[2]
	}
	f.add("open files", verdict(now < nearly*most), found, "raise fs.file-max")
}

// ofProcess are the limits of containerd's, which its shims have from it.
func ofProcess(f *findings, p procfs.Proc) {
	limits, err := p.Limits()
	if err != nil {
		return
	}
	// A shim of a large pod has some descriptors for each of its processes.
	f.add("its open files", verdict(limits.OpenFiles >= 4096), fmt.Sprintf("up to %d, for its shims, too", limits.OpenFiles), "raise it (LimitNOFILE of the service)")
	groups, err := p.Cgroups()
	if err != nil {
		return
	}
	for _, g := range groups {
		dir := filepath.Join(cgroupRoot, g.Path)
		if len(g.Controllers) > 0 && g.Controllers[0] != "" {
			dir = filepath.Join(cgroupRoot, strings.Join(g.Controllers, ","), g.Path)
		}
		most, err := strconv.ParseFloat(setting(filepath.Join(dir, "pids.max")), 64)
		if err != nil {
			continue // another controller's, or no limit
		}
		now, _ := strconv.ParseFloat(setting(filepath.Join(dir, "pids.current")), 64)
		f.add("its processes", verdict(now < nearly*most), fmt.Sprintf("%.0f of %.0f in its cgroup, with its shims", now, most), "raise it (TasksMax of the service)")
	}
}
