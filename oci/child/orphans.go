package child

import (
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// family knows which children have an owner and which launches are under way.
// It is the process's own, like its children are.
var family = kin{owned: map[int]struct{}{}, launches: map[uint64]struct{}{}, waits: map[int]uint64{}}

type kin struct {
	mu sync.Mutex
	// owned are the children that somebody waits for.
	owned map[int]struct{}
	// launches under way by their number; next is the number of the next one.
	launches map[uint64]struct{}
	next     uint64
	// waits holds the zombies nobody owns (yet), each with the number of the
	// first launch that began after it was seen: earlier ones may still turn
	// out to be its origin.
	waits map[int]uint64
}

// Launching announces that a process is about to be started whose
// descendants may be left to the shim. Until end is called, no unknown zombie
// that appeared meanwhile is reaped: it may be the very process whose pid the
// launch is about to tell.
func Launching() (end func()) {
	family.mu.Lock()
	number := family.next
	family.next++
	family.launches[number] = struct{}{}
	family.mu.Unlock()
	return sync.OnceFunc(func() {
		family.mu.Lock()
		delete(family.launches, number)
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

// ReapOrphans reaps children nobody owns, for as long as the process lives:
// daemons that hooks leave behind, processes of containers without a PID
// namespace of their own.
func ReapOrphans() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			family.reapOrphans()
		}
	}()
	family.reapOrphans()
}

func (k *kin) own(pid int) {
	k.mu.Lock()
	k.owned[pid] = struct{}{}
	delete(k.waits, pid)
	k.mu.Unlock()
}

func (k *kin) disown(pid int) {
	k.mu.Lock()
	delete(k.owned, pid)
	k.mu.Unlock()
	k.reapOrphans()
}

// reapOrphans looks at the first zombie without taking it. An owned one is
// left to its owner, whose disown calls again; an unknown one is left until
// the launches that may have made it are over, whose end calls again. So
// every zombie is looked at, and none is taken from its owner.
func (k *kin) reapOrphans() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		pid, _ := childFields(&info)
		if err != nil || pid == 0 {
			clear(k.waits)
			return
		}
		if _, ok := k.owned[pid]; ok {
			return
		}
		until, seen := k.waits[pid]
		if !seen {
			until = k.next
			k.waits[pid] = until
		}
		for number := range k.launches {
			if number < until {
				return
			}
		}
		for {
			err = unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG, nil)
			if err != unix.EINTR {
				break
			}
		}
		delete(k.waits, pid)
		if err != nil {
			return
		}
	}
}
