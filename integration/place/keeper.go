package place

// The keeper is a small process beside the one that owns a place. It waits on
// a pipe that the owner holds: when the owner is gone without having removed
// the place (panic, time limit, SIGKILL, Ctrl-C at the wrong moment), the
// keeper removes it.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// envKeeper tells a program that it was started as a keeper.
const envKeeper = "CLEAT_KEEPER"

// orders is what a keeper reads from its pipe: first a place, then, when the
// owner has removed it itself, that it is not needed any more.
type orders struct {
	Place     *Place `json:"place,omitempty"`
	Dismissed bool   `json:"dismissed,omitempty"`
}

// KeepIfAsked does a keeper's work and ends the program if it was started as a
// keeper; else it returns at once. A program that makes places calls it before
// anything else, because keepers are that same program.
func KeepIfAsked() {
	if os.Getenv(envKeeper) == "" {
		return
	}
	// Whoever reads what it says may be gone too, which must not end it.
	signal.Ignore(unix.SIGPIPE)
	os.Exit(watch(os.Stdin))
}

// watch removes the place named on the pipe unless the owner does, and returns
// the program's exit status.
func watch(pipe io.Reader) int {
	in := json.NewDecoder(pipe)
	var place *Place
	for {
		var o orders
		if err := in.Decode(&o); err != nil {
			break
		}
		if o.Dismissed {
			return 0
		}
		place = o.Place
	}
	if place == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "the owner of %s is gone: removing it\n", place.Dir)
	if err := place.clean(); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		return 1
	}
	return 0
}

// keeper is the owner's end.
type keeper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// keep starts a keeper for p.
func keep(p *Place) (*keeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	cmd := exec.Command(self)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), envKeeper+"=1")
	cmd.Stderr = os.Stderr
	// A session of its own: Ctrl-C in the owner's terminal is not for it.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	k := &keeper{cmd: cmd, pipe: pipe}
	if err := json.NewEncoder(pipe).Encode(orders{Place: p}); err != nil {
		k.dismiss()
		return nil, fmt.Errorf("tell the keeper: %w", err)
	}
	return k, nil
}

// dismiss ends the keeper.
func (k *keeper) dismiss() {
	json.NewEncoder(k.pipe).Encode(orders{Dismissed: true})
	k.pipe.Close()
	k.cmd.Wait()
}
