//go:build amd64 || arm64

package signals

import (
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The handler sets the bit of the signal, which is its number modulo 64, and then
// adds one to the eventfd.
var (
	pending uint64
	//lint:ignore U1000 the handler uses it
	event int32
	//lint:ignore U1000 the handler uses it
	one uint64 = 1
)

// handler is called by the kernel alone, with the number of the signal, on the
// signal stack that Go's runtime has given to each of its threads.
//
//lint:ignore U1000 handlerPC has its address
func handler()

// handlerPC is where it begins, restorerPC where what it returns to does: 0 where
// the kernel has that itself.
func handlerPC() uintptr
func restorerPC() uintptr

var (
	begin sync.Once
	mu    sync.Mutex               // guards told
	told  [64]func(syscall.Signal) // by the bit
)

func notify(f func(syscall.Signal), signals []syscall.Signal) {
	begin.Do(open)
	mu.Lock()
	for _, s := range signals {
		told[s%64] = f
	}
	mu.Unlock()
	for _, s := range signals {
		install(s, &action{handler: handlerPC(), flags: flags(s), restorer: restorerPC(), mask: ^uint64(0)}, nil)
	}
}

// open makes the eventfd. Where there is none to be had, signals are caught, and
// nobody is told.
func open() {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		event = -1
		return
	}
	event = int32(fd)
	go tell(os.NewFile(uintptr(fd), "signals"))
}

// tell lives as long as the process.
func tell(events *os.File) {
	var count [8]byte
	for {
		if _, err := events.Read(count[:]); err != nil {
			return // it is never closed
		}
		for come := atomic.SwapUint64(&pending, 0); come != 0; come &= come - 1 {
			number := bits.TrailingZeros64(come)
			mu.Lock()
			f := told[number]
			mu.Unlock()
			if number == 0 {
				number = 64
			}
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
