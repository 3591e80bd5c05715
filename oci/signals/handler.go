//go:build amd64 || arm64

package signals

import (
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// last is the highest signal number of Linux.
const last = 64

// pipe is the end into which the handler writes.
var pipe int32

// handler is called by the kernel alone, with the number of the signal, on the
// signal stack that Go's runtime has given to each of its threads.
func handler()

// handlerPC is where it begins, restorerPC where what it returns to does: 0 where
// the kernel has that itself.
func handlerPC() uintptr
func restorerPC() uintptr

var (
	begin  sync.Once
	mu     sync.Mutex // guards told
	told   [last + 1]func(syscall.Signal)
	broken error // of the pipe; then the signals are caught and not told
)

func notify(f func(syscall.Signal), signals []syscall.Signal) {
	begin.Do(func() { broken = openPipe() })
	mu.Lock()
	for _, s := range signals {
		told[s] = f
	}
	mu.Unlock()
	for _, s := range signals {
		install(s, &action{handler: handlerPC(), flags: flags(s), restorer: restorerPC(), mask: ^uint64(0)}, nil)
	}
}

func openPipe() error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		pipe = -1
		return err
	}
	pipe = int32(ends[1])
	go tell(os.NewFile(uintptr(ends[0]), "signals"))
	return nil
}

// tell lives as long as the process.
func tell(numbers *os.File) {
	var some [16]byte
	for {
		n, err := numbers.Read(some[:])
		if err != nil {
			return // the pipe is never closed
		}
		for _, number := range some[:n] {
			mu.Lock()
			f := told[min(number, last)]
			mu.Unlock()
			if f != nil {
				f(syscall.Signal(number))
			}
		}
	}
}

// action is struct sigaction of the kernel (rt_sigaction(2)).
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	onStack   = 0x08000000 // SA_ONSTACK
	restart   = 0x10000000 // SA_RESTART
	restorer  = 0x04000000 // SA_RESTORER
	noStopped = 0x00000001 // SA_NOCLDSTOP
	ignored   = 1          // SIG_IGN
)

func flags(s syscall.Signal) uint64 {
	f := uint64(onStack | restart)
	if restorerPC() != 0 {
		f |= restorer
	}
	if s == unix.SIGCHLD {
		f |= noStopped
	}
	return f
}

// install fails for numbers that are no signals alone.
func install(s syscall.Signal, new, old *action) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(new)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(new.mask), 0, 0)
}

func ignore(signals []syscall.Signal) (undo func()) {
	before := make([]action, len(signals))
	for i, s := range signals {
		install(s, &action{handler: ignored}, &before[i])
	}
	return func() {
		for i, s := range signals {
			install(s, &before[i], nil)
		}
	}
}
