//go:build race

package ttrpcserver

import "syscall"

// The race detector learns from those of package syscall that what is written to a socket comes before
// what is read there.

func readNow(fd uintptr, into []byte) (int, error) { return again(syscall.Read, fd, into) }

func sendNow(fd uintptr, b []byte) (int, error) { return again(syscall.Write, fd, b) }

func again(call func(int, []byte) (int, error), fd uintptr, b []byte) (int, error) {
	for {
		n, err := call(int(fd), b)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
