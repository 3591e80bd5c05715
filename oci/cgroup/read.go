package cgroup

// This file reads the files of a cgroup's directory.
//
// They are not kept open: the kernel keeps a page for each one that is. So each
// call opens, reads and closes every file, with the three system calls that this
// takes and none for the netpoller.

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// bufferSize has room for what nearly all files hold.
const bufferSize = 4096

// reader reads the files of one directory after the other. It serves one
// goroutine.
type reader struct {
	path string
	dir  int // descriptor of the directory
	buf  []byte
}

// enter opens a directory, for leave to close.
func (r *reader) enter(path string) error {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	r.path, r.dir = path, fd
	return nil
}

func (r *reader) leave() { unix.Close(r.dir) }

// read returns what a file of the directory holds, until the next is read.
func (r *reader) read(name string) ([]byte, error) {
	fd, err := openat(r.dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, r.failed("open", name, err)
	}
	defer unix.Close(fd)
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
	n := 0
	for {
		more, err := readFile(fd, r.buf[n:])
		if err != nil {
			return nil, r.failed("read", name, err)
		}
		n += more
		// The kernel gives all that there is, or fills the buffer
		// (fs/seq_file.c: a file of a cgroup is one record).
		if n < len(r.buf) {
			return r.buf[:n], nil
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

// has tells whether the directory has a file.
func (r *reader) has(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(r.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// current tells whether the directory is there, and the one that was entered.
func (r *reader) current() bool {
	var entered, there unix.Stat_t
	if err := unix.Lstat(r.path, &there); err != nil {
		return !isGone(err)
	}
	return unix.Fstat(r.dir, &entered) == nil && entered.Ino == there.Ino && entered.Dev == there.Dev
}

func (r *reader) failed(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: r.path + "/" + name, Err: err}
}

func openat(dir int, path string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func readFile(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}
