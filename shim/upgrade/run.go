package upgrade

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	"golang.org/x/sys/unix"
)

// Run replaces the program of this process and hands it the state. It only
// returns, with an error, if that is not possible; then everything is as it was,
// but that signals are ignored. Nothing may move that the state tells of.
func (p *Program) Run(state State, files *handover.Files, times Times) error {
	back, err := self()
	if err != nil {
		return err
	}
	defer back.Close()
	times.Saved = time.Now()
	memory, err := seal(&handed{State: state, Files: files.Numbers, Times: times})
	if err != nil {
		return err
	}
	defer memory.Close()
	fds := []int{int(memory.Fd()), int(back.file.Fd())}
	for _, fd := range files.Numbers {
		fds = append(fds, fd)
	}
	env := append(os.Environ(), arrival.Variables(fds[0], fds[1], "")...)

	// No process that is started meanwhile gets these files.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	defer func() {
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
	}()
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep descriptor %d open: %w", fd, err)
		}
	}
	defer arrival.IgnoreSignals()()
	// This ends all other threads, and this program.
	err = syscall.Exec(p.descriptor(), os.Args, env)
	return fmt.Errorf("run %s: %w", p.Path, err)
}

// Received is what this program was handed by the one that it has replaced.
type Received struct {
	State State
	Files *handover.Inherited
	Times Times
}

// Receive reads it.
func Receive(h *arrival.Handed) (*Received, error) { return receive(h.State) }

func receive(fd int) (*Received, error) {
	h, err := unseal(fd)
	if err != nil {
		return nil, err
	}
	return &Received{State: h.State, Files: handover.Inherit(h.Files), Times: h.Times}, nil
}
