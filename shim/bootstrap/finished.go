package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/cleatrun/cleat/oci"
)

// DeleteFinished is `delete` for a container of which the daemon has left
// nothing, by far the most of them: it writes the recorded end to stdout. It
// runs no OCI runtime. When there is something left to do it does nothing and
// returns false; then cleanup.Delete is to be called.
func (c Call) DeleteFinished(stdout io.Writer) (done bool, err error) {
	bundle, err := c.DeletedBundle()
	if err != nil {
		return false, nil
	}
	exit, err := bundle.ReadExit()
	if err != nil || !exit.Deleted || crashed(bundle) {
		return false, nil
	}
	c.RemoveDeadSocket(bundle)
	_, err = stdout.Write(DeleteAnswer(exit))
	return true, err
}

// crashed tells whether the shim has left word of its end.
func crashed(bundle oci.Bundle) bool {
	info, err := os.Lstat(bundle.CrashFile())
	return err == nil && info.Size() > 0
}

// DeletedBundle is the bundle of a `delete`: what the command line says, or
// the one of the container's name beside the working directory, which may be
// gone already.
func (c Call) DeletedBundle() (oci.Bundle, error) {
	if c.Bundle != "" {
		return absolute(c.Bundle)
	}
	// os.Getwd knows nothing of a folder that is gone; the kernel still does.
	dir, err := os.Readlink("/proc/self/cwd")
	if err != nil {
		return "", fmt.Errorf("find the bundle: %w", err)
	}
	dir = path.Dir(strings.TrimSuffix(dir, " (deleted)"))
	return oci.Bundle(path.Join(dir, c.ID)), nil
}

// RemoveDeadSocket removes the socket that the bundle names when nobody
// listens on it any more. A socket that others of the group still use, or that
// a new shim has made meanwhile, answers and stays.
func (c Call) RemoveDeadSocket(bundle oci.Bundle) error {
	address, err := bundle.ReadAddress()
	if path, ok := addressPath(address); err == nil && ok {
		return removeDeadSocket(path)
	}
	// No `start` was run for this container, or by a containerd shim that
	// wrote no address: then the socket can only be the one of its own name.
	dir, err := os.Readlink(bundle.Path(socketDirLink))
	if err != nil {
		if dir, err = ownSocketDir(); err != nil {
			return err
		}
	}
	return removeDeadSocket(socketPath(dir, c.Address, c.Namespace, c.ID))
}

// ownSocketDir is the first folder that a `start` without a given one would
// have used, if it is there.
func ownSocketDir() (string, error) {
	uid := os.Geteuid()
	if uid == 0 {
		return defaultSocketDir, nil
	}
	for _, dir := range userSocketDirs(uid) {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", errors.New("no socket folder")
}
