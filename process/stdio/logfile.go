package stdio

// This file is a file that output is appended to. With a limit it is rotated:
// PATH becomes PATH.1, that PATH.2, and so on. All that is remembered of it is
// the descriptor: whatever others do to the file is seen at the next write.

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// lineSlack is how much longer than the limit a file may get by a line that
// does not end; such a line is cut.
const lineSlack = 64 << 10

// logFile may be written to by several relays.
type logFile struct {
	stream string // of which it is, for errors
	path   string
	limits rotation

	mu      sync.Mutex // guards what follows
	file    *os.File
	id      fileID
	midline bool // what was written last did not end a line
	users   int
	// rotations counts them.
	rotations int64
}

type fileID struct{ dev, ino uint64 }

// openLogFile opens a file to be appended to, and makes the folders above it.
func openLogFile(stream, path string, limits rotation) (*logFile, error) {
	l := &logFile{stream: stream, path: path, limits: limits, users: 1}
	if err := l.open(); err != nil {
		return nil, err
	}
	if info, err := l.file.Stat(); err != nil || limits.size > 0 && !info.Mode().IsRegular() {
		l.file.Close()
		if err != nil {
			return nil, err
		}
		return nil, invalid(stream, path, "it is not a regular file, which alone can have a max-size")
	}
	return l, nil
}

// share is called for every sink more than the first.
func (l *logFile) share() *logFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users++
	return l
}

// release is called by every sink; the last one closes the file.
func (l *logFile) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		closeFile(&l.file)
	}
}

func (l *logFile) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return fmt.Errorf("%s: %w: %w", l.stream, err, class(err))
	}
	// Not to wait for the reader of what turns out to be a FIFO.
	fd, err := open(l.path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", l.stream, &os.PathError{Op: "open", Path: l.path, Err: err}, class(err))
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if kind := st.Mode & unix.S_IFMT; err == nil && kind != unix.S_IFREG && kind != unix.S_IFCHR {
		err = invalid(l.stream, l.path, "it is not a file")
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	closeFile(&l.file)
	l.file, l.id, l.midline = os.NewFile(uintptr(fd), l.path), fileID{uint64(st.Dev), st.Ino}, false
	return nil
}

// size is that of the file as it is now. One that was deleted or moved away is
// made anew; one that was cut is appended to.
func (l *logFile) size() (int64, error) {
	var st unix.Stat_t
	err := unix.Stat(l.path, &st)
	if err == nil && (fileID{uint64(st.Dev), st.Ino}) == l.id && l.file != nil {
		return st.Size, nil
	}
	if err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
		return 0, &os.PathError{Op: "stat", Path: l.path, Err: err}
	}
	if err := l.open(); err != nil {
		return 0, err
	}
	if err := unix.Fstat(int(l.file.Fd()), &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", l.path, err)
	}
	return st.Size, nil
}

// append writes b and returns how much of it was written: with an error, unless
// it was all. The file is rotated at the ends of lines.
func (l *logFile) append(b []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(b) {
		size, err := l.size()
		if err != nil {
			return n, err
		}
		part := b[n:]
		if l.limits.size > 0 {
			if part = l.fitting(part, size); len(part) == 0 {
				if err := l.rotate(); err != nil {
					return n, fmt.Errorf("rotate %s: %w", l.path, err)
				}
				continue
			}
		}
		wrote, err := write(int(l.file.Fd()), part)
		if n += wrote; wrote > 0 {
			l.midline = part[wrote-1] != '\n'
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// fitting returns how much of b goes into the file, whose size that is, before it
// has to be rotated: the lines for which there is room, or the rest of one that
// was begun.
func (l *logFile) fitting(b []byte, size int64) []byte {
	room := l.limits.size - size
	if int64(len(b)) <= room {
		return b
	}
	if room > 0 {
		if i := bytes.LastIndexByte(b[:room], '\n') + 1; i > 0 {
			return b[:i]
		}
	}
	if size > 0 && !l.midline {
		return nil
	}
	// A line that does not fit anyhow.
	i := bytes.IndexByte(b, '\n') + 1
	if i == 0 {
		i = len(b)
	}
	if over := int64(i) - room - lineSlack; over > 0 {
		i = max(i-int(over), 0)
	}
	return b[:i]
}

// rotate moves the file and those before it, and begins a new one.
func (l *logFile) rotate() error {
	name := func(n int) string {
		if n == 0 {
			return l.path
		}
		return l.path + "." + strconv.Itoa(n)
	}
	for n := l.limits.files - 1; n > 0; n-- {
		if err := os.Rename(name(n-1), name(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if l.limits.files == 1 {
		if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	l.rotations++
	closeFile(&l.file)
	return l.open()
}
