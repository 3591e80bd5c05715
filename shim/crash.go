package shim

import (
	"errors"
	"os"
	"runtime/debug"
	"sync"

	"github.com/cleatrun/cleat/oci"
	"golang.org/x/sys/unix"
)

// This file sees to it that a shim that dies of a fault of its own, by a panic
// outside a handler or by a signal such as SIGSEGV, leaves word of it: in its log,
// which containerd has to read at that moment, and in a file of a bundle, which
// the action `delete` tells of. SIGKILL leaves none.

// crashReport is that file. It is empty as long as the shim lives.
type crashReport struct {
	mu     sync.Mutex // guards what follows
	bundle oci.Bundle // that has it
}

// open makes the file in the first of the bundles that is there.
func (r *crashReport) open(bundles ...oci.Bundle) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var failures error
	for _, bundle := range bundles {
		file, err := os.OpenFile(bundle.CrashFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err == nil {
			// Go's runtime has a duplicate.
			err = errors.Join(debug.SetCrashOutput(file, debug.CrashOptions{}), file.Close())
		}
		if err == nil {
			r.bundle = bundle
			return nil
		}
		failures = errors.Join(failures, err)
	}
	return failures
}

// isIn tells whether the file is in that bundle.
func (r *crashReport) isIn(bundle oci.Bundle) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bundle == bundle
}

// reportCrashes makes the file, in the bundle for which the shim was started or
// that of a container that is served.
func (s *shim) reportCrashes() {
	bundles := []oci.Bundle{oci.Bundle(s.daemon.Bundle)}
	for _, c := range s.tasks.containers.all() {
		bundles = append(bundles, c.Bundle())
	}
	if err := s.crash.open(bundles...); err != nil {
		s.log.Warn("the report of a crash would be in this log only: %v", err)
	}
}

// bundleGoes moves the file out of the bundle of a container that is deleted, if
// another one is served.
func (s *shim) bundleGoes(bundle oci.Bundle) {
	if !s.crash.isIn(bundle) {
		return
	}
	for _, c := range s.tasks.containers.all() {
		if s.crash.open(c.Bundle()) == nil {
			return
		}
	}
}
