// Package handover is how files get from one program of a process to the next:
// execve(2) keeps what is open unless it is to be closed, and the state that is
// handed over names it. Each room names its files when it writes its state
// (Files) and takes them by these names when it is restored (Inherited).
package handover

import (
	"fmt"
	"maps"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files are those that are to be handed over, by name. A nil *Files takes
// names and no files: for a state that is only to be looked at.
type Files struct {
	// Numbers of the files' descriptors.
	Numbers map[string]int
	// Copy makes duplicates: for files that may be closed at any moment. Close
	// closes them.
	Copy bool
}

// Add names a file and returns the name, or "" when the file is closed or cannot
// be duplicated. It stays the caller's.
func (f *Files) Add(name string, file syscall.Conn) string {
	if f == nil {
		return name
	}
	fd := -1
	if conn, err := file.SyscallConn(); err == nil {
		conn.Control(func(n uintptr) {
			fd = int(n)
			if f.Copy {
				if fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0); err != nil {
					fd = -1
				}
			}
		})
	}
	if fd < 0 {
		return ""
	}
	if f.Numbers == nil {
		f.Numbers = map[string]int{}
	}
	f.Numbers[name] = fd
	return name
}

// AddNumber is Add for a descriptor that is no *os.File. It must not be closed
// meanwhile.
func (f *Files) AddNumber(name string, fd int) string {
	if f == nil {
		return name
	}
	if f.Copy {
		var err error
		if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return ""
		}
	}
	if f.Numbers == nil {
		f.Numbers = map[string]int{}
	}
	f.Numbers[name] = fd
	return name
}

// Close closes the duplicates.
func (f *Files) Close() {
	if f.Copy {
		for _, fd := range f.Numbers {
			unix.Close(fd)
		}
	}
	f.Numbers = nil
}

// Inherited are files that the last program has handed over. What takes them
// must not close any of them before Own, nor when it fails: until then the way
// back leads over the same descriptors. Not for concurrent use.
type Inherited struct {
	numbers map[string]int // those that nobody has taken
	// held are all files made of them: one that nobody refers to is closed by
	// Go's runtime.
	held []*os.File
	// spent are those that were duplicated, so the original is not needed.
	spent []*os.File
	plain []int // taken as numbers
}

// Inherit makes them of what Files had. No process may be started before Own: it
// would get them too.
func Inherit(numbers map[string]int) *Inherited { return &Inherited{numbers: maps.Clone(numbers)} }

// Take returns the file of a name, once. One that is non-blocking is on the
// netpoller.
func (i *Inherited) Take(name string) (*os.File, error) {
	fd, ok := i.numbers[name]
	if !ok {
		return nil, fmt.Errorf("no file %q was handed over", name)
	}
	delete(i.numbers, name)
	file := os.NewFile(uintptr(fd), name)
	if file == nil {
		return nil, fmt.Errorf("file %q was handed over as descriptor %d", name, fd)
	}
	i.held = append(i.held, file)
	return file, nil
}

// TakeNumber is Take for who wants the descriptor itself.
func (i *Inherited) TakeNumber(name string) (int, error) {
	fd, ok := i.numbers[name]
	if !ok {
		return -1, fmt.Errorf("no file %q was handed over", name)
	}
	delete(i.numbers, name)
	i.plain = append(i.plain, fd)
	return fd, nil
}

// TakeCopied is Take for who makes a duplicate and leaves the file alone. Own
// closes it.
func (i *Inherited) TakeCopied(name string) (*os.File, error) {
	file, err := i.Take(name)
	if err == nil {
		i.spent = append(i.spent, file)
	}
	return file, err
}

// Own makes the files those of who has taken them, and closes what nobody has.
// There is no way back from here.
func (i *Inherited) Own() {
	for _, file := range i.spent {
		file.Close()
	}
	for _, file := range i.held {
		if conn, err := file.SyscallConn(); err == nil {
			conn.Control(func(fd uintptr) { unix.CloseOnExec(int(fd)) })
		}
	}
	for _, fd := range i.plain {
		unix.CloseOnExec(fd)
	}
	for _, fd := range i.numbers {
		unix.Close(fd)
	}
	i.held, i.spent, i.plain, i.numbers = nil, nil, nil, nil
}
