package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Program is a file that is to become the shim's program. It is held open from
// the first look at it on: what was tried is what is run, whatever becomes of
// its name.
type Program struct {
	Path string
	file *os.File
}

// Open looks at a file. One that cannot be a program, or that others than its
// owner can change, is refused.
func Open(path string) (*Program, error) {
	refuse := func(why string) error {
		return fmt.Errorf("%s %s: %w", path, why, errdefs.ErrInvalidArgument)
	}
	if !filepath.IsAbs(path) {
		return nil, refuse("is not an absolute path")
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("%s does not exist: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	p := &Program{Path: path, file: os.NewFile(uintptr(fd), path)}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			err = refuse("is a directory")
		case st.Mode&unix.S_IFMT != unix.S_IFREG:
			err = refuse("is not a regular file")
		case st.Mode&0o111 == 0:
			err = refuse("is not executable")
		case st.Mode&0o002 != 0:
			err = refuse("can be written by everybody")
		case st.Uid != 0 && int(st.Uid) != os.Geteuid():
			err = refuse(fmt.Sprintf("belongs to user %d, who is neither root nor the shim's", st.Uid))
		}
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// self is the program that runs, whose file may be gone.
func self() (*Program, error) {
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/proc/self/exe", Err: err}
	}
	return &Program{Path: "/proc/self/exe", file: os.NewFile(uintptr(fd), "self")}, nil
}

// Close gives the file up.
func (p *Program) Close() error { return p.file.Close() }

// descriptor is a path by which the process that has the file open runs it.
func (p *Program) descriptor() string { return "/proc/self/fd/" + strconv.Itoa(int(p.file.Fd())) }
