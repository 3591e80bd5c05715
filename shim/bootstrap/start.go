package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/options"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// startLockWait bounds the wait for other starts of the same group, which
	// can each take as long as askLimit.
	startLockWait = 10 * time.Second
	// leaderEndLimit bounds how long a leader that is ending may take to
	// remove its socket.
	leaderEndLimit = 5 * time.Second
	// socketDirLink is the link to the folder of the socket in a bundle.
	socketDirLink = "s"
)

// Starting is a `start` that has read what it is asked for.
type Starting struct {
	call   Call
	params params
}

// ReadStart reads what containerd says on the stdin of `start`.
func (c Call) ReadStart(stdin io.Reader) (Starting, error) {
	input, err := readStdin(stdin)
	if err != nil {
		return Starting{}, err
	}
	p, err := c.parseParams(input)
	if err != nil {
		return Starting{}, err
	}
	if c.Address == "" {
		c.Address = p.grpcAddress
	}
	return Starting{call: c, params: p}, nil
}

// Options of the client.
func (s Starting) Options() options.Message { return s.params.options }

// Plain returns what is said to the start when there is no TOML in it, and false
// when there is: the package config reads that.
func (s Starting) Plain() (said options.Said, plain bool, err error) {
	if options.File() != "" {
		return said, false, nil
	}
	path, body, err := s.Options().TOML()
	if err != nil || path != "" || len(body) > 0 {
		return said, false, err
	}
	said.Message = s.Options()
	said.Client, err = said.Message.Runc()
	return said, err == nil, err
}

// Run is the action `start`: it leaves a daemon running for the container, or
// finds the one of its group, and writes where it listens to stdout. When it
// fails, nothing is left of it. What said was read from TOML is left in the
// bundle for the daemon; keep tells that there was any.
func (s Starting) Run(said options.Said, keep bool, stdout io.Writer) (err error) {
	c, p := s.call, s.params
	settings := said.Settings(c.InvokedAs)
	bundle, err := c.workingBundle()
	if err != nil {
		return err
	}
	group, err := groupOf(bundle, c.ID, settings.Group)
	if err != nil {
		return err
	}
	if p.socketDir == "" {
		p.socketDir = settings.SocketDir.String()
	}
	dir, err := socketDir(p.socketDir)
	if err != nil {
		return err
	}
	socket := socketPath(dir, c.Address, c.Namespace, group)

	held, err := lockSocket(socket, startLockWait)
	if err != nil {
		return err
	}
	defer held.release()
	var undo steps // while the lock is held
	defer func() {
		if err != nil {
			undo.run()
		}
	}()

	listener, version, err := c.listenOrJoin(socket, p.version())
	if err != nil {
		return err
	}
	if listener >= 0 {
		defer unix.Close(listener)
		undo.add(func() { os.Remove(socket) })
	}
	address := socketScheme + socket
	if err := bundle.WriteAddress(address); err != nil {
		return fmt.Errorf("write the shim's address into the bundle: %w", err)
	}
	undo.add(func() { os.Remove(bundle.Path("address")) })
	if p.socketDir != "" {
		if err := linkSocketDir(bundle, dir); err != nil {
			return err
		}
		undo.add(func() { os.Remove(bundle.Path(socketDirLink)) })
	}
	if keep {
		if err := said.Keep(bundle); err != nil {
			return err
		}
		undo.add(func() { options.Forget(bundle) })
	}
	if listener >= 0 {
		daemon, err := c.startDaemon(bundle, listener, p, settings.Runtime)
		if err != nil {
			return err
		}
		undo.add(daemon.kill)
	}
	_, err = stdout.Write(startAnswer(p.legacy, address, version))
	return err
}

// startDaemon starts the daemon with everything that is its to inherit.
func (c Call) startDaemon(bundle oci.Bundle, listener int, p params, o oci.Options) (process, error) {
	if err := raiseOOMScore(); err != nil {
		return process{}, err
	}
	if os.Getenv(schedulingVariable) != "" {
		if err := ownSchedulingCore(); err != nil {
			return process{}, err
		}
	}
	if o.ShimCgroup != "" {
		if err := joinCgroup(o.ShimCgroup); err != nil {
			return process{}, err
		}
	}
	return c.spawn(string(bundle), listener, c.daemonArgs(c.Debug || p.debug), daemonEnv(os.Environ(), p.ttrpcAddress, c.ID, hugePagesForAll()))
}

// workingBundle is the bundle of a `start`: the working directory, unless the
// command line says otherwise.
func (c Call) workingBundle() (oci.Bundle, error) { return absolute(c.Bundle) }

// absolute is filepath.Abs of a bundle. That package is not used by what runs
// first: it is initialised late (see the package early).
func absolute(bundle string) (oci.Bundle, error) {
	if path.IsAbs(bundle) {
		return oci.Bundle(path.Clean(bundle)), nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the bundle: %w", err)
	}
	return oci.Bundle(path.Join(dir, bundle)), nil
}

// groupOf returns the group whose containers share one shim. A sandbox without
// a spec has no annotations.
func groupOf(bundle oci.Bundle, id string, group options.Group) (string, error) {
	spec, err := bundle.ReadSpec()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return group.Of(id, spec.Annotations), nil
}

// listenOrJoin returns a new listener on the socket of the group, or none
// (-1) when a daemon serves there already, and the version of the Task API
// that is served: the wanted one, if that can be. The caller holds the socket's
// lock.
func (c Call) listenOrJoin(socket string, wanted int) (listener, version int, err error) {
	const pause = 5 * time.Millisecond
	for deadline := time.Now().Add(leaderEndLimit); ; time.Sleep(pause) {
		listener, err = listen(socket)
		if !errors.Is(err, unix.EADDRINUSE) {
			return listener, wanted, err
		}
		version, err = askLeader(socket, c.Namespace, c.ID, wanted)
		switch {
		case err == nil:
			return -1, version, nil
		case errors.Is(err, errNobody):
			if err := unix.Unlink(socket); err != nil && err != unix.ENOENT {
				return -1, 0, fmt.Errorf("remove %s, on which nobody listens: %w", socket, err)
			}
		case !errors.Is(err, errEnding):
			return -1, 0, err
		case time.Now().After(deadline):
			return -1, 0, fmt.Errorf("the shim of the group at %s accepts connections for %s and answers none: %w", socket, leaderEndLimit, errdefs.ErrUnavailable)
		}
	}
}

// linkSocketDir leaves a link to the folder of the socket in the bundle: it may
// be another one when the container is deleted.
func linkSocketDir(bundle oci.Bundle, dir string) error {
	link := bundle.Path(socketDirLink)
	err := os.Symlink(dir, link)
	if errors.Is(err, fs.ErrExist) {
		if err = os.Remove(link); err == nil {
			err = os.Symlink(dir, link)
		}
	}
	if err != nil {
		return fmt.Errorf("link the socket folder into the bundle: %w", err)
	}
	return nil
}

// steps are what has to be undone, last first, when a later one fails.
type steps []func()

func (s *steps) add(undo func()) { *s = append(*s, undo) }

func (s steps) run() {
	for i := len(s) - 1; i >= 0; i-- {
		s[i]()
	}
}
