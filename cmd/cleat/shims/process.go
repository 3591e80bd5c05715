package shims

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/prometheus/procfs"
)

// Process is what the kernel tells of one.
type Process struct {
	Args []string `json:",omitempty"`
	// Cwd is its working directory, which may be gone.
	Cwd string `json:",omitempty"`
	// User is its real user id.
	User int
	// State in words. Stopped tells that a signal, or a debugger, keeps it from
	// running.
	State   string
	Stopped bool `json:",omitempty"`
	Started time.Time
	Threads int
	// Private and Resident are bytes of memory: what would be free without it, and
	// all that it can touch without a page fault. Private is 0 when it may not be
	// read.
	Private, Resident uint64
	parent            int
}

// states are those of proc_pid_stat(5).
var states = map[string]string{
	"R": "running", "S": "sleeping", "D": "in the kernel, where no signal reaches it", "Z": "zombie",
	"T": "stopped by a signal", "t": "stopped by a debugger", "X": "dead", "I": "idle",
}

// readProcess reads what /proc tells. A process that has ended is an error; what
// may not be read is left empty.
func readProcess(p procfs.Proc) (Process, error) {
	var process Process
	stat, err := p.Stat()
	if err != nil {
		return process, err
	}
	process.parent = stat.PPID
	process.State, process.Threads = states[stat.State], stat.NumThreads
	process.Stopped = stat.State == "T" || stat.State == "t"
	process.Resident = uint64(stat.ResidentMemory())
	if process.Args, err = p.CmdLine(); err != nil {
		return process, err
	}
	if status, err := p.NewStatus(); err == nil {
		process.User = int(status.UIDs[0])
	}
	if at, err := stat.StartTime(); err == nil {
		process.Started = time.Unix(0, int64(at*float64(time.Second)))
	}
	if sum, err := p.ProcSMapsRollup(); err == nil {
		process.Private = sum.PrivateClean + sum.PrivateDirty
	}
	process.Cwd, _ = p.Cwd()
	process.Cwd = strings.TrimSuffix(process.Cwd, " (deleted)")
	return process, nil
}

// daemonName begins the names of all shims.
const daemonName = "containerd-shim"

// daemon reads the command line of a shim that serves containers. What runs for a
// moment only (start, delete, the trial of an upgrade) is none.
func daemon(args []string) (namespace, id string, ok bool) {
	if len(args) == 0 {
		return "", "", false
	}
	var address string
	rest := args[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		name, value, given := strings.Cut(strings.TrimLeft(rest[0], "-"), "=")
		rest = rest[1:]
		switch name {
		case "upgrade-try", "info", "v", "version":
			return "", "", false
		case "namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket":
			if !given && len(rest) > 0 {
				value, rest = rest[0], rest[1:]
			}
		}
		switch name {
		case "namespace":
			namespace = value
		case "id":
			id = value
		case "address":
			address = value
		}
	}
	if len(rest) > 0 { // an action
		return "", "", false
	}
	// Anybody can call a process so: what is no name of containerd's is none here.
	if bootstrap.ValidName(namespace) != nil || id != "" && bootstrap.ValidName(id) != nil {
		return "", "", false
	}
	named := strings.HasPrefix(filepath.Base(args[0]), daemonName)
	return namespace, id, named || id != "" && address != ""
}

// copies drops the processes that another of the list is just starting: until
// they run a program of their own they look like it.
func copies(list []*Shim) []*Shim {
	byPID := map[int]*Shim{}
	for _, s := range list {
		byPID[s.PID] = s
	}
	return slices.DeleteFunc(list, func(s *Shim) bool {
		parent := byPID[s.Process.parent]
		return parent != nil && slices.Equal(parent.Process.Args, s.Process.Args)
	})
}

// listening is the path of the first Unix socket on which a process listens.
// sockets are those of its network namespace, by inode.
func listening(p procfs.Proc, sockets map[uint64]string) string {
	targets, err := p.FileDescriptorTargets()
	if err != nil {
		return ""
	}
	for _, target := range targets {
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		if path, known := sockets[inode]; err == nil && known {
			return path
		}
	}
	return ""
}

// accepting is the flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON
// of linux/net.h).
const accepting = 1 << 16

// listeners are the paths of the listening Unix sockets of a process's network
// namespace, by inode.
func listeners(pid int) map[uint64]string {
	found := map[uint64]string{}
	fs, err := procfs.NewFS(procPath(pid))
	if err != nil {
		return found
	}
	all, err := fs.NetUNIX()
	if err != nil {
		return found
	}
	for _, row := range all.Rows {
		if row.Flags&accepting != 0 && strings.HasPrefix(row.Path, "/") {
			found[row.Inode] = row.Path
		}
	}
	return found
}

// procPath is a path below the folder of a process in /proc.
func procPath(pid int, elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, elem...)...)
}

// SameMounts tells whether a process has the mounts and the root that we have, so
// that a path means the same.
func SameMounts(pid int) bool {
	for _, link := range []string{"ns/mnt", "root"} {
		theirs, err := os.Readlink(procPath(pid, link))
		if err != nil {
			return false
		}
		ours, err := os.Readlink("/proc/self/" + link)
		if err != nil || ours != theirs {
			return false
		}
	}
	return true
}
