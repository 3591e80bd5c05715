// Package graceperiod hides a wait of the kernel's behind other work.
//
// Whoever moves a process to a cgroup waits for a grace period of RCU first, 8
// to 16 ms, unless another one has done so a moment before
// (cgroup_threadgroup_rwsem in kernel/cgroup/cgroup.c, percpu_down_write in
// kernel/locking/percpu-rwsem.c): every `create` and `exec` of an OCI runtime
// does. Even making a group waits for whoever is about to move a process. A shim
// knows before the runtime is run that it will be, and `start` is the first to know.
//
// It imports little, so that `start` can begin before the rest of the program is
// initialised.
package graceperiod

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// root is where hierarchies are mounted. Where they are elsewhere, nothing is won.
const root = "/sys/fs/cgroup"

var underWay atomic.Bool

// Begin makes the kernel begin a grace period: a thread moves this process to the
// cgroup in which it is, which changes nothing. Begin does not wait for it, and
// does nothing while another one is under way.
//
// A process that somebody else moves at that moment may find itself moved back:
// `start` moves itself, before there is a daemon.
func Begin() {
	if !underWay.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer underWay.Store(false)
		attach()
	}()
}

// attach tells whether it has moved the process to where it is.
func attach() bool {
	fd := openOwn()
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	_, err := unix.Write(fd, []byte("0")) // who writes
	return err == nil
}

// openOwn opens the list of processes of the group of this process, in the first
// hierarchy in which that can be done, and returns -1 if it is none.
func openOwn() int {
	var text [4 << 10]byte
	fd, err := unix.Open("/proc/self/cgroup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	n, _ := unix.Read(fd, text[:])
	unix.Close(fd)
	for line := range strings.Lines(string(text[:max(n, 0)])) {
		procs := procsOf(strings.TrimSuffix(line, "\n"))
		if procs == "" {
			continue
		}
		if fd, err := unix.Open(procs, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0); err == nil {
			return fd
		}
	}
	return -1
}

// procsOf is the list of processes of a group in /proc/PID/cgroup (cgroups(7)):
//
//	9:pids:/group
//	0::/group
func procsOf(line string) string {
	_, rest, _ := strings.Cut(line, ":")
	controllers, group, found := strings.Cut(rest, ":")
	if !found || !strings.HasPrefix(group, "/") {
		return ""
	}
	hierarchy := strings.TrimPrefix(controllers, "name=")
	if controllers != "" {
		hierarchy = "/" + hierarchy
	}
	return root + hierarchy + group + "/cgroup.procs"
}
