//go:build !race

package ttrpcserver

// System calls on sockets that never wait, without telling Go's scheduler of them.
// It would wake its monitor thread for the first one after a rest, which costs more
// than a request does.

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readNow reads what is there from a non-blocking socket, like read(2).
func readNow(fd uintptr, into []byte) (int, error) {
	return now(unix.SYS_READ, fd, into, 0)
}

// sendNow writes what there is room for; who has gone is EPIPE, and no signal.
func sendNow(fd uintptr, b []byte) (int, error) {
	return now(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func now(call, fd uintptr, b []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		runtime.KeepAlive(b)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
