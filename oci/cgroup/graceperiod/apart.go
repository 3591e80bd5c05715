//go:build amd64 || arm64

package graceperiod

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// BeginApart is Begin for a process that ends soon. Not a thread of it moves, which
// could not end before the kernel lets it, but a child that does nothing else, and
// whose end is nobody's business.
func BeginApart() {
	if fd := openOwn(); fd >= 0 {
		child(fd)
		unix.Close(fd)
	}
}

// BeginLate is for the daemon, where `start` has not begun; here it has, up to 5 ms
// sooner: in the daemon a thread waits for the only processor until all is ready.
func BeginLate() {}

var (
	writer = [...]byte{'0'} // who writes
	// On our stack the child cannot handle a signal.
	all uint64 = 1<<64 - 1
)

// child makes a child that writes to a file and ends. It holds nothing open for
// whose end somebody may wait, and has our memory: a copy would cost `start` an
// eighth of all it does.
func child(fd int) {
	var before uint64
	clone(uintptr(fd), uintptr(unsafe.Pointer(&writer)), &all, &before)
}

// clone blocks the signals of all while it makes the child, which goes from system
// call to system call and touches neither its stack nor anything else in memory. It
// returns in the caller alone. It is one function, which a thread does not leave in
// between: to tie a goroutine to its thread makes Go start another one.
//
//go:noescape
func clone(fd, b uintptr, all, before *uint64) (pid int)
