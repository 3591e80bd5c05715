package child

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/cleatrun/cleat/oci/signals"
	"golang.org/x/sys/unix"
)

// This file reaps the children that nobody owns, without ever taking one from
// its owner.
//
// A zombie that nobody owns is either an orphan (a daemon that a hook left
// behind, a process of a container that shares the host's PID namespace) or the
// very process that an OCI runtime is about to tell the pid of, ended early.
// Nothing about the zombie tells which. But the second was born during the
// launch that will tell its pid, and that launch is still under way. So:
//
//   - A zombie may be taken when nobody owns it and no launch is under way that
//     began before it was born. Launches that begin later cannot have made it,
//     so every zombie waits for a few launches that all have a time limit, and
//     not for one more with every launch that begins meanwhile.
//   - The owner of a process is known (own) before its launch is ended; from
//     birth to adoption a launch protects it, from adoption to its end the
//     owner.
//   - Whatever else in this program starts a process and waits for it (os/exec
//     in a mount helper) does so within a launch, so that what is taken here is
//     nobody's. A zombie keeps its number until it is reaped; since only we can
//     reap it, the number that was looked at is the process that is taken.
//   - For a moment the number of a process that has just been reaped belongs to
//     a new one while its owner has not let go of it yet. Owners are therefore
//     counted: the new one stays owned when the old one lets go.
//
// waitid(P_ALL) shows the first zombie only, and again the same one until it is
// reaped. It cannot hide the others for ever: an owned one is reaped by the
// owner, who waits from the beginning (Command does it by itself, Child by
// contract), and disown looks again; an unknown one is waited for until the
// launches before its birth are over, whose end looks again, and all behind it
// that waited meanwhile are then taken in one go, save those that were born in
// a launch that still runs.

// family knows which children have an owner and which launches are under way.
// It is the process's own, like its children are.
var family = kin{owned: map[int]int{}, launches: map[*launch]struct{}{}}

type kin struct {
	mu sync.Mutex
	// reaping is false until ReapOrphans: till then nothing is taken.
	reaping bool
	// owned are the children that somebody waits for, with how many do.
	owned    map[int]int
	launches map[*launch]struct{}
}

// launch is the making of a process by something that tells its pid later.
type launch struct {
	began uint64 // in the unit of bornAt
}

// Launching announces that a process is about to be started whose
// descendants may be left to the shim. Until end is called, no unknown zombie
// that was born meanwhile is reaped: it may be the very process whose pid the
// launch is about to tell. Who tells the pid calls Adopt before end.
func Launching() (end func()) {
	l := &launch{began: now()}
	family.mu.Lock()
	family.launches[l] = struct{}{}
	family.mu.Unlock()
	return sync.OnceFunc(func() {
		family.mu.Lock()
		delete(family.launches, l)
		family.mu.Unlock()
		family.reapOrphans()
	})
}

// BecomeSubreaper makes the orphans of the shim's descendants its children;
// see PR_SET_CHILD_SUBREAPER in prctl(2).
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become child subreaper: %w", err)
	}
	return nil
}

// ReapOrphans reaps children nobody owns, from now on and for as long as the
// process lives. Children that were there before this program image was
// (it has replaced another one) are adopted first.
func ReapOrphans() {
	family.mu.Lock()
	started := family.reaping
	family.reaping = true
	family.mu.Unlock()
	if started {
		return
	}
	signals.Notify(func(syscall.Signal) { family.reapOrphans() }, unix.SIGCHLD)
	family.reapOrphans()
}

func (k *kin) own(pid int) {
	k.mu.Lock()
	k.owned[pid]++
	k.mu.Unlock()
}

func (k *kin) disown(pid int) {
	k.mu.Lock()
	if k.owned[pid]--; k.owned[pid] == 0 {
		delete(k.owned, pid)
	}
	k.mu.Unlock()
	k.reapOrphans()
}

// reapOrphans looks at the first zombie without taking it, takes it if it is
// nobody's, and goes on with the next.
func (k *kin) reapOrphans() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.reaping {
		pid := waitid(unix.P_ALL, 0, unix.WNOWAIT)
		if pid == 0 || k.owned[pid] > 0 || k.launched(pid) {
			return
		}
		if waitid(unix.P_PID, pid, 0) != pid {
			return
		}
	}
}

// launched tells whether a process may come from a launch that is under way.
func (k *kin) launched(pid int) bool {
	if len(k.launches) == 0 {
		return false
	}
	born, err := bornAt(pid)
	if err != nil {
		return true // to be on the safe side; the end of the launch asks again
	}
	for l := range k.launches {
		if l.began <= born {
			return true
		}
	}
	return false
}

// waitid returns the first child that matches and has ended, or 0.
func waitid(kind, id, options int) (pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(kind, id, &info, unix.WEXITED|unix.WNOHANG|options, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0
		}
		pid, _ = childFields(&info)
		return pid
	}
}

// ticks is how many of the units in which the kernel tells times to processes
// make a second: USER_HZ, which is 100 on every architecture that Go runs
// Linux on.
const ticks = 100

// now is the time since boot, suspension included, in ticks.
func now() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // before every process: the safe side
	}
	return uint64(t.Sec)*ticks + uint64(t.Nsec)/(1e9/ticks)
}

// bornAt is when a process, which may be a zombie, was forked: field 22 of
// proc_pid_stat(5), on the same clock as now and rounded in the same way.
func bornAt(pid int) (uint64, error) { return statField(pid, 22) }

// parentOf is the pid of a process's parent.
func parentOf(pid int) (int, error) {
	parent, err := statField(pid, 4)
	return int(parent), err
}

// statField reads a number of /proc/<pid>/stat by its place in the list of
// proc_pid_stat(5).
func statField(pid, place int) (uint64, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return field(stat, place)
}

// field finds one beyond the second, which is the program's name in parentheses
// and may hold any byte.
func field(stat []byte, place int) (uint64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const first = 3
	if len(fields) <= place-first {
		return 0, fmt.Errorf("unexpected stat of a process: %q", stat)
	}
	return strconv.ParseUint(string(fields[place-first]), 10, 64)
}
