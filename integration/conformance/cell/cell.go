// Package cell runs a command as if it had a machine of its own: it sees its
// own processes, mounts, cgroups and network and its own /run, /tmp, /etc,
// /opt and /var/lib, and every image name on every registry is there to pull.
//
// It is for test suites that are not ours: they use fixed names (the namespace
// "testing", /run/containerd-test, ...), start daemons of their own, pull
// images by public names, and leave behind what they like. In a cell two of
// them cannot meet, nothing they need is downloaded, and nothing stays.
//
// A cell is entered by the running program itself, started once more as the
// cell's init (inside.go).
package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
)

// Command is what to run in a cell.
type Command struct {
	// Folders are on the command's PATH, before the host's, in this order.
	Folders []string

	// Links are programs that are found before all others: name of the
	// link, and name of the program of one of Folders that it points to.
	Links map[string]string

	Args []string // the first is a program of PATH
	Env  []string // on top of the cell's own

	// Busybox is a static busybox, the stuff that images are made of. It is
	// a program of one of Folders.
	Busybox string

	// Output takes what the command and all that it started write.
	Stdout, Stderr io.Writer `json:"-"`
}

// Ended is how a command ended.
type Ended struct {
	Status int      // exit status; 128 and more: killed by a signal
	Left   []string // command lines of the processes that were still there
}

const (
	envInit  = "CLEAT_CELL" // tells a program that it is to be a cell's init
	ordersFD = 3            // the init reads a Command from it
	reportFD = 4            // and writes an Ended to it
)

// orders is what a cell's init is told.
type orders struct {
	Command Command
	Place   *place.Place
}

// Run runs c in a new cell and removes the cell. When ctx ends before the
// command, all that is in the cell is killed. Whatever the answer, the cell is
// gone afterwards or the error says what of it is not.
func Run(ctx context.Context, c Command) (Ended, error) {
	p, err := place.New()
	if err != nil {
		return Ended{}, err
	}
	ended, err := run(ctx, p, c)
	return ended, errors.Join(err, p.Remove())
}

func run(ctx context.Context, p *place.Place, c Command) (Ended, error) {
	ordersRead, ordersWrite, err := os.Pipe()
	if err != nil {
		return Ended{}, fmt.Errorf("make a cell: %w", err)
	}
	defer ordersWrite.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		ordersRead.Close()
		return Ended{}, fmt.Errorf("make a cell: %w", err)
	}
	defer reportRead.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(p.Environ(), envInit+"=1")
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{ordersRead, reportWrite}
	cmd.SysProcAttr = &unix.SysProcAttr{
		// The cgroup namespace comes later: its root is where the init
		// is when it makes it.
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// With its init a cell ends.
		Pdeathsig: unix.SIGKILL,
		Setsid:    true, // Ctrl-C in the terminal is for us
	}
	gone := make(chan error, 1)
	started := make(chan error)
	go func() { // ends with the cell, which the place ends
		// The init is killed when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			gone <- cmd.Wait()
		}
	}()
	err = <-started
	ordersRead.Close()
	reportWrite.Close()
	if err != nil {
		return Ended{}, fmt.Errorf("start the init of a cell: %w", err)
	}
	if err := json.NewEncoder(ordersWrite).Encode(orders{c, p}); err != nil {
		return Ended{}, errors.Join(fmt.Errorf("tell the init of a cell what to do: %w", err), end(p, gone))
	}

	type answer struct {
		ended Ended
		err   error
	}
	answers := make(chan answer, 1)
	go func() { // ends when the init has ended, at the latest
		var a answer
		a.err = json.NewDecoder(reportRead).Decode(&a.ended)
		answers <- a
	}()
	select {
	case a := <-answers:
		err := end(p, gone)
		if a.err != nil {
			return Ended{}, fmt.Errorf("the init of the cell failed: %w (it wrote to the command's standard error)", errors.Join(a.err, err))
		}
		// Killed by us: how the init itself ended says nothing.
		return a.ended, nil
	case <-ctx.Done():
		end(p, gone)
		return Ended{}, ctx.Err()
	}
}

// end kills all that is in a cell and waits for its init. Through the place,
// because a frozen process dies only when it is thawed.
func end(p *place.Place, gone <-chan error) error {
	if err := p.Remove(); err != nil {
		return err
	}
	return <-gone
}

// path is the PATH inside.
func path(c Command) string {
	list := insideLinks
	for i := range c.Folders {
		list += ":" + Folder(i)
	}
	return list + ":" + os.Getenv("PATH")
}

// insideLinks is where Links of a Command are in the cell.
const insideLinks = "/run/cell/links"

// Folder is where the i-th of a Command's Folders is in the cell.
func Folder(i int) string { return "/run/cell/" + strconv.Itoa(i) }
