// Package arrival is the first that a program does which has just replaced
// another one of the same process: it catches the signals that would end it, and
// keeps the way back open, with a time limit. It imports little, so that it runs
// before the rest of the program is initialised.
package arrival

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/cleatrun/cleat/oci/signals"
	"golang.org/x/sys/unix"
)

const (
	// variable tells the new program what it was handed: the numbers of the
	// state's descriptor and of the last program's, or -1 where that is not the
	// way back but who has just taken it.
	variable = "CLEAT_HANDOVER"
	// refusedVariable tells a program to which the way back led why.
	refusedVariable = "CLEAT_REFUSED"
)

// readyLimit is how long a new program may take until it is ready, which is far
// more than it needs and less than containerd's patience with a shim.
const readyLimit = time.Second

// Handed is what a program was handed by the last one.
type Handed struct {
	// State is the descriptor of the state.
	State int
	// Refused is why the program that was to replace this one has not; empty in
	// one that has replaced another.
	Refused string
	// At is when this program has arrived.
	At time.Time
	// Signals that have come, or will: those of CatchSignals.
	Signals chan syscall.Signal

	back     int
	environ  []string
	watchdog *time.Timer
	mu       sync.Mutex // held by who goes back or on
	passed   bool
}

var (
	begin sync.Once
	given *Handed
)

// Begin does what has to be done at once, if this program has replaced another
// one, and tells whether it has. It is called by an init function, on the
// process's first thread.
func Begin() bool {
	begin.Do(arrive)
	return given != nil
}

// Get returns what was handed over, or nil.
func Get() *Handed {
	Begin()
	return given
}

func arrive() {
	value, ok := os.LookupEnv(variable)
	if !ok {
		return
	}
	h := &Handed{At: time.Now(), Signals: CatchSignals(), environ: os.Environ(), Refused: os.Getenv(refusedVariable)}
	os.Unsetenv(variable) // not for the OCI runtime and loggers
	os.Unsetenv(refusedVariable)
	state, back, _ := strings.Cut(value, ":")
	var err error
	if h.State, err = strconv.Atoi(state); err != nil {
		return
	}
	if h.back, err = strconv.Atoi(back); err != nil {
		return
	}
	// A program that is run by its descriptor is called by that number.
	if name, err := unix.BytePtrFromString(path.Base(os.Args[0])); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
	}
	given = h
	if h.back >= 0 {
		h.watchdog = time.AfterFunc(readyLimit, func() {
			h.Back(fmt.Errorf("it was not ready within %s", readyLimit))
		})
	}
}

// Variables are the environment by which Get of another program knows what it
// was handed.
func Variables(state, back int, refused string) []string {
	variables := []string{fmt.Sprintf("%s=%d:%d", variable, state, back)}
	if refused != "" {
		variables = append(variables, refusedVariable+"="+strings.ReplaceAll(refused, "\x00", ""))
	}
	return variables
}

// Back replaces this program by the last one, with the state as it was, and
// tells it why. It only returns, with an error, when that is not possible, or
// when Pass was called before.
func (h *Handed) Back(why error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.passed || h.back < 0 {
		return fmt.Errorf("there is no way back: %w", why)
	}
	defer IgnoreSignals()()
	env := append(without(h.environ, variable, refusedVariable), Variables(h.State, -1, why.Error())...)
	err := syscall.Exec(descriptorPath(h.back), os.Args, env)
	return fmt.Errorf("go back to the last program: %w", errors.Join(err, why))
}

// Pass is the point of no return: the way back is closed.
func (h *Handed) Pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passed = true
	if h.watchdog != nil {
		h.watchdog.Stop()
	}
	unix.Close(h.State)
	if h.back >= 0 {
		unix.Close(h.back)
	}
}

// descriptorPath leads to an open file.
func descriptorPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func without(environ []string, names ...string) []string {
	var rest []string
next:
	for _, v := range environ {
		for _, name := range names {
			if strings.HasPrefix(v, name+"=") {
				continue next
			}
		}
		rest = append(rest, v)
	}
	return rest
}

// caught are signals that the daemon deals with, forgotten those that it catches
// to do nothing: ones that are ignored stay so in containers and loggers, a
// caught one is theirs as usual.
var (
	caught    = []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGUSR1, unix.SIGQUIT}
	forgotten = []syscall.Signal{unix.SIGPIPE, unix.SIGHUP}
)

// CatchSignals begins to catch the signals that would end the daemon.
func CatchSignals() chan syscall.Signal {
	come := make(chan syscall.Signal, 8)
	signals.Notify(nil, forgotten...)
	signals.Notify(func(s syscall.Signal) {
		select {
		case come <- s:
		default: // there are some to be dealt with
		}
	}, caught...)
	return come
}

// IgnoreSignals makes the process ignore what would end it between two programs,
// until undo is called. What is ignored stays so over execve(2), what is caught
// does not. SIGCHLD must not be among them: the kernel would reap the children.
func IgnoreSignals() (undo func()) { return signals.Ignore(fatal()...) }

// fatal are the signals that end a process which does nothing about them, but
// for those that tell of a fault in it, and those of Go's runtime.
func fatal() []syscall.Signal {
	all := []syscall.Signal{
		unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM,
		unix.SIGSTKFLT, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGXCPU, unix.SIGXFSZ,
	}
	for s := syscall.Signal(34); s <= 64; s++ { // real-time ones
		all = append(all, s)
	}
	return all
}
