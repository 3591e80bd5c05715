package cleanup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cleatrun/cleat/oci"
	"golang.org/x/sys/unix"
)

// callLimit is how long a call of the OCI runtime may go on that the daemon has
// left under way: what it makes is easier to remove when it is complete.
const callLimit = 500 * time.Millisecond

// endCalls ends the calls of the OCI runtime that the daemon has left under way
// and that make processes of the container: create, restore, exec. They would go
// on when everything is removed. It tells whether one was killed, which may have
// left what no runtime knows of.
func endCalls(bundle oci.Bundle) (killed bool, failures error) {
	deadline := time.Now().Add(callLimit)
	for _, pid := range launches(bundle) {
		ended, err := endCall(bundle, pid, deadline)
		killed = killed || !ended
		failures = errors.Join(failures, err)
	}
	return killed, failures
}

// endCall waits for the end of one, and kills it with all that it runs if that
// does not come.
func endCall(bundle oci.Bundle, pid int, deadline time.Time) (ended bool, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true, nil // it has ended
	}
	call := left{pidfd: pidfd}
	defer call.close()
	if !isLaunch(bundle, pid) { // the number is another's by now
		return true, nil
	}
	if call.ended(time.Until(deadline)) {
		return true, nil
	}
	// A call leads a process group, in which its hooks are.
	if group, err := unix.Getpgid(pid); err == nil && group == pid {
		unix.Kill(-group, unix.SIGKILL)
	}
	unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	if !call.ended(endLimit) {
		return false, fmt.Errorf("the OCI runtime (process %d) does not end", pid)
	}
	return false, nil
}

// launches finds them among all processes.
func launches(bundle oci.Bundle) (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && isLaunch(bundle, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isLaunch tells whether a process is one, by what no other has: it was asked for
// the pid of what it makes, in a file of the bundle.
func isLaunch(bundle oci.Bundle, pid int) bool {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := bytes.Split(line, []byte{0})
	i := slices.IndexFunc(args, func(arg []byte) bool { return string(arg) == "--pid-file" })
	return i >= 0 && i+1 < len(args) && bytes.HasPrefix(args[i+1], []byte(bundle+"/"))
}
