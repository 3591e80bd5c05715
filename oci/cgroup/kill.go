package cgroup

// This file sends signals to every process of a group, whatever they do
// meanwhile: fork, exit, move into nested groups, or stand frozen.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// killPasses bounds how often the list is read again for new processes.
	killPasses = 20
	// freezeAfter is how many passes may find new processes before a SIGKILL
	// freezes the group to stop the forking.
	freezeAfter = 3
	// freezeWait bounds the wait for a group to stand still. A process in an
	// uninterruptible sleep can hold that up for ever.
	freezeWait = 100 * time.Millisecond
	// killBatch bounds how many pidfds are open at a time.
	killBatch = 64
)

// Kill sends signal to every process of the group and of the groups nested in
// it, also to those that are forked meanwhile; but one that forks again and again,
// in answer to the signal or not, is not followed for ever, unless it is SIGKILL,
// which fails then. It does not wait for them to end. SIGKILL takes effect on frozen groups too; any other signal to a frozen
// group is delivered when somebody thaws it. A cgroup that is gone or empty is
// no error.
//
// It refuses with errdefs.ErrFailedPrecondition when this process itself is in
// the group, which is so for a container that was made without a cgroup of its
// own: the signal would hit all its neighbours.
//
// Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst (cgroup.kill,
// since Linux 5.14), cgroup-v1/freezer-subsystem.rst, pidfd_open(2).
func (g *Group) Kill(signal syscall.Signal) error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return nil
	}
	if slices.Contains(pids, os.Getpid()) {
		return fmt.Errorf("signal %d to cgroup %s: it is not the container's own: %w",
			signal, g.paths[g.procsController()], errdefs.ErrFailedPrecondition)
	}
	if g.mode == V2 && signal == syscall.SIGKILL {
		// A threaded group refuses with EOPNOTSUPP, an older kernel has no such file.
		err := writeFile(filepath.Join(g.dir(""), "cgroup.kill"), "1")
		if err == nil {
			return nil
		}
	}
	return g.killEach(signal)
}

// killEach signals process by process, in passes, until a pass finds none that
// has not been signalled yet.
func (g *Group) killEach(signal syscall.Signal) error {
	kill := signal == syscall.SIGKILL
	if kill {
		// Frozen on entry or frozen below: SIGKILL waits for the thaw on V1.
		defer g.thawAll()
	}
	signalled := make(map[int]struct{})
	for pass := range killPasses {
		if kill && pass == freezeAfter {
			g.freeze()
		}
		fresh := 0
		err := walk(g.dir(g.procsController()), func(dir string) error {
			n, err := signalGroup(dir, signal, signalled)
			fresh += n
			return err
		})
		if err != nil {
			return fmt.Errorf("signal %d to cgroup %s: %w", signal, g.paths[g.procsController()], err)
		}
		if fresh == 0 {
			return nil
		}
		if kill && pass == 0 {
			g.thawAll()
		}
	}
	if !kill {
		return nil // what is new is of those that have it
	}
	return fmt.Errorf("signal %d to cgroup %s: still new processes after %d passes: %w",
		signal, g.paths[g.procsController()], killPasses, errdefs.ErrUnavailable)
}

// signalGroup signals the processes of one group and returns how many of them
// were not in signalled before. SIGKILL is sent again to those that were,
// since their number may by now be that of another process of the group; any
// other signal is sent once.
//
// A pid is only a number: its process may end, and the number go to a stranger,
// before the signal is sent. So a pidfd is opened first, then the list is read
// again. If the number is still listed, the pidfd is either that process or one
// that has ended already, in which case the signal goes nowhere.
func signalGroup(dir string, signal syscall.Signal, signalled map[int]struct{}) (fresh int, err error) {
	pids, err := appendPIDs(nil, dir)
	if err != nil {
		return 0, err
	}
	if signal != syscall.SIGKILL {
		pids = slices.DeleteFunc(pids, func(pid int) bool { _, ok := signalled[pid]; return ok })
	}
	for batch := range slices.Chunk(pids, killBatch) {
		n, err := signalBatch(dir, batch, signal, signalled)
		fresh += n
		if err != nil {
			return fresh, err
		}
	}
	return fresh, nil
}

func signalBatch(dir string, pids []int, signal syscall.Signal, signalled map[int]struct{}) (fresh int, err error) {
	fds := make([]int, 0, len(pids))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == nil:
			fds = append(fds, fd)
		case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			// Ended; or a number that is a thread's by now, which is EINVAL or,
			// on newer kernels (seen on 6.18), ENOENT.
			fds = append(fds, -1)
		default:
			return 0, fmt.Errorf("pidfd_open %d: %w", pid, err)
		}
	}
	listed, err := appendPIDs(nil, dir)
	if err != nil {
		return 0, err
	}
	slices.Sort(listed)
	for i, pid := range pids {
		if fds[i] < 0 {
			continue
		}
		if _, still := slices.BinarySearch(listed, pid); !still {
			continue
		}
		err := unix.PidfdSendSignal(fds[i], signal, nil, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fresh, fmt.Errorf("pidfd_send_signal %d: %w", pid, err)
		}
		if _, ok := signalled[pid]; !ok {
			signalled[pid] = struct{}{}
			fresh++
		}
	}
	return fresh, nil
}

// Thaw lets the processes of a frozen (paused) group run on. Groups nested in
// it that were frozen on their own stay so. A group that is not frozen, gone,
// or on a host without a freezer, is no error. It does not wait.
func (g *Group) Thaw() error {
	file, _, thawed := g.freezer()
	if file == "" {
		return nil
	}
	if err := writeFile(filepath.Join(g.freezerDir(), file), thawed); err != nil && !isGone(err) {
		return fmt.Errorf("thaw cgroup: %w", err)
	}
	return nil
}

// Frozen tells whether the group is frozen itself, whatever is in it.
func (g *Group) Frozen() bool {
	file, frozen, _ := g.freezer()
	if file == "" {
		return false
	}
	b, err := os.ReadFile(filepath.Join(g.freezerDir(), file))
	return err == nil && bytes.HasPrefix(b, []byte(frozen))
}

// freezer names the file that freezes a group and what is written to it.
func (g *Group) freezer() (file, frozen, thawed string) {
	if g.mode == V2 {
		return "cgroup.freeze", "1", "0"
	}
	// The root of the hierarchy has no such file.
	if p, ok := g.paths["freezer"]; !ok || p == "/" {
		return "", "", ""
	}
	return "freezer.state", "FROZEN", "THAWED"
}

func (g *Group) freezerDir() string {
	if g.mode == V2 {
		return g.dir("")
	}
	return g.dir("freezer")
}

// freeze stops the group, nested ones included, and waits a moment for it to
// stand still. It is a means to catch up with processes that fork, not a
// promise: errors are not told, and whoever calls it thaws at once.
//
// The freezer's hierarchy can hold other processes than the one that was
// listed. It does nothing if this process is among them.
func (g *Group) freeze() {
	file, frozen, _ := g.freezer()
	if file == "" || g.holdsUs() {
		return
	}
	dir := g.freezerDir()
	if writeFile(filepath.Join(dir, file), frozen) != nil {
		return
	}
	for end := time.Now().Add(freezeWait); time.Now().Before(end) && !g.isFrozen(dir); {
		time.Sleep(time.Millisecond)
	}
}

func (g *Group) holdsUs() bool {
	found := false
	err := walk(g.freezerDir(), func(dir string) error {
		pids, err := appendPIDs(nil, dir)
		found = found || slices.Contains(pids, os.Getpid())
		return err
	})
	return found || err != nil
}

func (g *Group) isFrozen(dir string) bool {
	if g.mode == V2 {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		return err != nil || bytes.Contains(b, []byte("frozen 1"))
	}
	b, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
	return err != nil || bytes.HasPrefix(b, []byte("FROZEN"))
}

// LetDie lets SIGKILL take effect that was sent to processes of the group, or of
// those nested in it, whoever has frozen them.
func (g *Group) LetDie() {
	if g.mode != V2 { // which does so by itself
		g.thawAll()
	}
}

// thawAll thaws the group and every nested one: V1 delivers SIGKILL only then.
func (g *Group) thawAll() {
	file, _, thawed := g.freezer()
	if file == "" {
		return
	}
	_ = walk(g.freezerDir(), func(dir string) error {
		return writeFile(filepath.Join(dir, file), thawed)
	})
}

// writeFile writes a control file, which must exist.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
