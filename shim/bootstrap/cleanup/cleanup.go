// Package cleanup is the action `delete` where the daemon has not done all of
// it: it died, or was never asked. Whatever can be left of a container is
// removed, as far as it is there: processes, the OCI runtime's state, the
// cgroup, mounts, the socket.
//
// containerd runs it after every container, gives it five seconds, takes every
// byte on stderr for a warning, and publishes the exit that it prints.
package cleanup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/oci/rootfs"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/options"
	"golang.org/x/sys/unix"
)

// runtimeLimit bounds the OCI runtime, so that one that hangs leaves time for
// the rest before containerd kills us.
const runtimeLimit = 4 * time.Second

// statusKilled is the exit status that containerd expects of a container of
// whose end nothing is known: 128 and SIGKILL.
const statusKilled = 128 + int(unix.SIGKILL)

// Delete removes what is left of the container and writes how it ended to
// stdout. That something could not be removed is told on stderr, and is no
// error: containerd removes the bundle next and has no better way.
func Delete(call bootstrap.Call, stdout, stderr io.Writer) error {
	if done, err := call.DeleteFinished(stdout); done {
		return err
	}
	bundle, err := call.DeletedBundle()
	if err != nil {
		return err
	}
	exit, err := remove(call, bundle)
	if err != nil {
		io.WriteString(stderr, call.Fail(err))
	}
	_, err = stdout.Write(bootstrap.DeleteAnswer(exit))
	return err
}

func remove(call bootstrap.Call, bundle oci.Bundle) (exit oci.Exit, failures error) {
	fail := func(err error) { failures = errors.Join(failures, err) }

	original := openBundle(bundle)
	defer original.close()
	o, unread := recordedOptions(call, bundle)
	if unread != nil {
		fail(unread)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runtimeLimit)
	defer cancel()
	pid := initPid(bundle)
	var left left
	var killedCall bool
	var err error
	// Else the number is none of this host's, and what looks like a call may be
	// what the runtime keeps for the container, which is for it to end.
	if o.Processes == oci.HostProcesses {
		if killedCall, err = endCalls(bundle); err != nil {
			fail(err)
		}
		if left, err = find(pid, call.ID); err != nil {
			fail(err)
		}
	}
	defer left.close()
	// Before the runtime does: some take seconds for what is frozen. Whether it
	// has worked is told in the end.
	left.kill()
	killed := time.Now()

	forget := func() error {
		if !original.there() {
			return nil
		}
		err := driver.New(bundle, call.Namespace, o).Delete(ctx, call.ID, true)
		// A runtime that is not there has not made anything, or has left a pid.
		if err != nil && pid == 0 && driver.NotRun(err) {
			return nil
		}
		return err
	}
	err = forget()
	if ended := left.end(); ended != nil {
		fail(ended)
	}
	if err != nil && !driver.NotRun(err) && ctx.Err() == nil {
		err = forget() // somebody has killed it, or it could not kill what is dead now
	}
	if err != nil {
		fail(err)
	}
	if original.replaced() {
		return oci.Exit{Pid: pid, Status: statusKilled, Timestamp: killed}, failures
	}
	if killedCall {
		end, _ := ctx.Deadline()
		fail(removeUnknown(bundle, max(time.Until(end), endLimit)))
	}
	if err := rootfs.Unmount(bundle.Rootfs()); err != nil {
		fail(err)
	}
	if err := call.RemoveDeadSocket(bundle); err != nil {
		fail(fmt.Errorf("remove the shim's socket: %w", err))
	}

	// The bundle goes next, so it is containerd's log that keeps it.
	if crash, err := bundle.ReadCrash(); err != nil {
		fail(fmt.Errorf("read what the shim has left: %w", err))
	} else if crash != "" {
		fail(fmt.Errorf("the shim ended by a fault of its own, and left in %s:\n%s", bundle.CrashFile(), crash))
	}

	exit, err = bundle.ReadExit()
	if err == nil {
		return exit, failures
	}
	if !errors.Is(err, fs.ErrNotExist) {
		fail(fmt.Errorf("read the recorded exit: %w", err))
	}
	return oci.Exit{Pid: pid, Status: statusKilled, Timestamp: killed}, failures
}

// removeUnknown removes the cgroup that a runtime that was killed has made and not
// noted.
func removeUnknown(bundle oci.Bundle, limit time.Duration) error {
	spec, err := bundle.ReadSpec()
	if err != nil {
		return nil // then it has not come so far
	}
	return cgroup.RemoveEmpty(spec.Linux.CgroupsPath, limit)
}

// recordedOptions are those with which the container was created. The daemon
// wrote them before it first called the runtime. A bundle without them, of a
// container that never came so far, has perhaps what its start was told.
func recordedOptions(call bootstrap.Call, bundle oci.Bundle) (oci.Options, error) {
	o, err := bundle.ReadOptions()
	if err != nil {
		err = fmt.Errorf("read the recorded options: %w", err)
	}
	if o.BinaryName == "" {
		said, _, unread := options.Kept(bundle)
		err = errors.Join(err, unread)
		o = said.Settings(call.InvokedAs).Runtime
	}
	if !o.SystemdCgroup {
		if spec, err := bundle.ReadSpec(); err == nil {
			o.SystemdCgroup = spec.SystemdCgroup()
		}
	}
	return o, err
}
