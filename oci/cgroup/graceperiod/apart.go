//go:build amd64 || arm64

package graceperiod

import (
	"runtime"
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

var writer = [...]byte{'0'} // who writes

// child makes a child that writes to a file and ends. It holds nothing open for
// whose end somebody may wait, and has our memory: a copy would cost `start` an
// eighth of all it does.
func child(fd int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// On our stack it cannot handle a signal.
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return
	}
	clone(uintptr(fd), uintptr(unsafe.Pointer(&writer)))
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}

// clone returns in the caller alone: the child goes from system call to system
// call and touches neither its stack nor anything else in memory.
//
//go:noescape
func clone(fd, b uintptr) (pid int)
