package oci

import (
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// UnnamedFile makes a file in the folder dir that has no name: nothing is left
// of it, however the shim ends.
func UnnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), path.Join(dir, "spill")), nil
	}
	if err != unix.EOPNOTSUPP && err != unix.EISDIR {
		return nil, &os.PathError{Op: "make a file in", Path: dir, Err: err}
	}
	// A filesystem that has no files without a name.
	f, err := os.CreateTemp(dir, ".spill-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("take the name of a file: %w", err)
	}
	return f, nil
}
