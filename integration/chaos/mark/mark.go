// Package mark is a page of memory that a program in a container shares with
// chaos through a file: what it has done, as it knows it itself, whatever becomes
// of those who should tell it.
package mark

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Page is what a program tells. All fields are written by the program alone.
type Page struct {
	Starts atomic.Int64 // how often it was started
	Out    atomic.Int64 // bytes that the kernel has taken from it for stdout
	Err    atomic.Int64 // for stderr
	Ending atomic.Int64 // exit code + 1, when nothing is left to do but exit
	Failed atomic.Int64 // number of the error of a write, 0 for none
}

const size = 4096

// Make makes the file of a page.
func Make(path string) error { return os.WriteFile(path, make([]byte, size), 0o666) }

// Open maps a page, until the program ends or Close.
func Open(path string) (*Page, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return (*Page)(unsafe.Pointer(&memory[0])), nil
}

// Close unmaps a page.
func (p *Page) Close() error { return syscall.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(p)), size)) }
