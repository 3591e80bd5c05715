package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
)

// This file has file systems in user space mounted and unmounted by their
// helpers, which know the daemons behind them. Helpers are children that are
// waited for here, within the caller's child.Launching.

const (
	// helperTime bounds a mount helper: it may ask a network for its file system,
	// and holds up the reaping of orphans meanwhile.
	helperTime = 2 * time.Minute
	// unmountTime bounds one that unmounts; without it the mount is detached.
	unmountTime = 10 * time.Second
	// outputGrace is for the output of a helper that has ended and whose daemon
	// has kept it open.
	outputGrace = time.Second
)

// helper is a program that mounts: "fuse3.type" by "mount.fuse3 ... -t type".
type helper struct{ program, kind string }

// helperFor tells which helper a type of mounts is for, if it is.
func helperFor(kind string) (helper, bool) {
	for _, family := range []string{"fuse", "fuse3"} {
		if name, ok := strings.CutPrefix(kind, family+"."); ok {
			return helper{"mount." + family, name}, true
		}
	}
	return helper{}, false
}

// mount leaves the options to the helper, whatever they are.
func (h helper) mount(m oci.Mount, point string, done *undo) error {
	before := mountsAt(point)
	// Whether it succeeds or not: one may fail behind the mount.
	done.add(func() (failures error) {
		for range mountsAt(point) - before {
			failures = errors.Join(failures, detach(point))
		}
		return failures
	})
	args := []string{m.Source, point}
	for _, option := range m.Options {
		args = append(args, "-o", option)
	}
	args = append(args, "-t", h.kind)
	if out, err := run(helperTime, h.program, args...); err != nil {
		return fmt.Errorf("%s %s: %w: %q", h.program, strings.Join(args, " "), err, out)
	}
	return nil
}

// unmountFUSE tells the daemon. With an error the mount is still there.
func unmountFUSE(point string) (err error) {
	for _, program := range []string{"fusermount3", "fusermount"} {
		if _, err = run(unmountTime, program, "-u", point); err == nil {
			return nil
		}
	}
	return err
}

// run returns what a program says, too.
func run(limit time.Duration, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = outputGrace
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) { // and it succeeded
		err = nil
	}
	return out, err
}
