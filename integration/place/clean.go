package place

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each step of a removal. Killed processes are gone within
// milliseconds; a machine that is out of memory takes longer.
const patience = 15 * time.Second

// clean ends the place's processes, then removes mounts, cgroups and files, in
// the order in which one holds the other.
func (p *Place) clean() error {
	var failed []error
	if err := p.until("end processes", func() []string {
		p.thaw()
		var alive []string
		for _, process := range p.Processes() {
			p.kill(process.PID)
			alive = append(alive, process.String())
		}
		return alive
	}); err != nil {
		failed = append(failed, err)
	}
	if err := p.until("unmount", func() []string {
		for _, point := range p.mounts() {
			unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		return p.mounts()
	}); err != nil {
		// Removing files now could reach through a mount.
		return errors.Join(append(failed, err)...)
	}
	if err := p.until("remove cgroups", func() []string {
		for _, cgroup := range p.cgroups() {
			os.Remove(cgroup)
		}
		return p.cgroups()
	}); err != nil {
		failed = append(failed, err)
	}
	for _, dir := range append(p.podStates(), p.RuntimeState(), p.Dir) {
		if err := os.RemoveAll(dir); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// until repeats a step until it reports nothing that is left. The kernel tells
// nobody when a cgroup can go or a killed process is gone, so it asks again.
func (p *Place) until(what string, step func() []string) error {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := step()
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s of %s: after %s there is still: %s", what, p.Dir, patience, strings.Join(left, "; "))
		}
		time.Sleep(pause)
	}
}

// thaw lets frozen processes of the place run, because a frozen process does
// not die (freezer of cgroup v1; v2 kills frozen ones).
func (p *Place) thaw() {
	for _, cgroup := range p.cgroups() {
		state := filepath.Join(cgroup, "freezer.state")
		if _, err := os.Stat(state); err == nil {
			os.WriteFile(state, []byte("THAWED"), 0)
		}
	}
}

// Settled waits until nothing is left over and returns what still was there
// when it gave up after limit. What runs after an RPC has been answered (the
// `delete` action, the shim's own end) is allowed that time.
func Settled(limit time.Duration, leftovers func() []string) []string {
	deadline := time.Now().Add(limit)
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := leftovers()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(pause)
	}
}
