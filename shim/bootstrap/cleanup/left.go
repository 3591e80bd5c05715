package cleanup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// endLimit bounds the wait for processes that were killed to be gone, and for
// the kernel to let go of their cgroup.
const endLimit = 500 * time.Millisecond

// left is what may still run of a container: its init process, and its cgroup.
// It is found before the OCI runtime is called, for that may know nothing of
// the container any more (its state is lost in a crash) and answer that all is
// well. The zero value is nothing.
type left struct {
	pidfd int
	group *cgroup.Group
}

// initPid is what the runtime wrote as the pid of the init process, or 0.
func initPid(bundle oci.Bundle) int {
	f, err := os.OpenFile(bundle.InitPidFile(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0
	}
	return pid
}

// find returns what runs of the container with this id, whose init process
// once had this pid. The number may be another process's by now: it counts only
// if that is in a cgroup that bears the id. The pidfd is there first, so that
// the cgroup read is of the very process that is killed later.
func find(pid int, id string) (left, error) {
	if pid == 0 {
		return left{}, nil
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // gone, or a thread
		return left{}, nil
	}
	if err != nil {
		return left{}, fmt.Errorf("open init process %d: %w", pid, err)
	}
	l := left{pidfd: pidfd}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil || !cgroup.Bears(string(text), id) {
		l.close()
		return left{}, nil
	}
	group, err := cgroup.Load(pid)
	if l.ended(0) {
		// What was read may be of a successor in the number.
		if group != nil {
			group.Close()
		}
		l.close()
		return left{}, nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return l, err
	}
	l.group = group
	return l, nil
}

// kill kills what runs, whether or not it is frozen.
func (l left) kill() error {
	if l.pidfd <= 0 {
		return nil
	}
	var failures error
	if l.group != nil {
		failures = l.group.Kill(syscall.SIGKILL)
		if errdefs.IsFailedPrecondition(failures) { // it is our own cgroup as well
			failures = nil
		}
	}
	if err := unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		failures = errors.Join(failures, fmt.Errorf("kill init process: %w", err))
	}
	return failures
}

// end kills what still runs, and removes the cgroup when it is empty then. It
// does nothing where the OCI runtime has done it.
func (l left) end() error {
	if l.pidfd <= 0 {
		return nil
	}
	failures := l.kill()
	if !l.ended(endLimit) {
		failures = errors.Join(failures, errors.New("init process does not end"))
	}
	if l.group != nil {
		failures = errors.Join(failures, l.group.Remove(endLimit))
	}
	return failures
}

// ended tells whether the init process has ended within limit.
func (l left) ended(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; {
		wait := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(l.pidfd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
		if n > 0 || err != nil && err != unix.EINTR {
			return true
		}
		if wait == 0 {
			return false
		}
	}
}

func (l left) close() {
	if l.pidfd > 0 {
		unix.Close(l.pidfd)
	}
	if l.group != nil {
		l.group.Close()
	}
}
