package shims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/control/client"
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Dump asks a shim what its goroutines do.
func (s *Shim) Dump(ctx context.Context, limit time.Duration) (dump control.Dump, err error) {
	return dump, s.Ask(ctx, limit, func(ctx context.Context, c *client.Client) (err error) {
		dump, err = c.Dump(ctx)
		return err
	})
}

// dumpPoll is how often it is looked for the file of a dump.
const dumpPoll = 10 * time.Millisecond

// SignalledDump gets a dump of a shim that does not answer: it sends SIGUSR1,
// and reads the file that the shim writes. A shim that does not catch the signal,
// as every one of ours does, is sent none, for it would die of it.
func (s *Shim) SignalledDump(ctx context.Context, limit time.Duration) (dump control.Dump, err error) {
	if s.Process.User != os.Geteuid() {
		return dump, fmt.Errorf("it belongs to user %d", s.Process.User) // who can have any folder for its bundle
	}
	bundle := oci.Bundle(procPath(s.PID, "cwd")) // wherever that is by now
	// What an earlier one has left is not the answer.
	if err := bundle.Remove(control.DumpFile); err != nil {
		return dump, err
	}
	if err := s.signal(unix.SIGUSR1); err != nil {
		return dump, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		text, err := bundle.Read(control.DumpFile)
		if err == nil {
			bundle.Remove(control.DumpFile)
			return dump, json.Unmarshal(text, &dump)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			return dump, err
		}
		select {
		case <-time.After(dumpPoll):
		case <-ctx.Done():
			return dump, fmt.Errorf("it has not written %s in its bundle within %s of SIGUSR1; containerd's log may have more", control.DumpFile, limit)
		}
	}
}

// signal sends a signal that the process catches, to that process and no other.
func (s *Shim) signal(sig unix.Signal) error {
	pidfd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return fmt.Errorf("it has ended: %w", err)
	}
	defer unix.Close(pidfd)
	p, err := procfs.NewProc(s.PID)
	if err != nil {
		return err
	}
	process, err := readProcess(p)
	if err != nil {
		return err
	}
	switch {
	case !process.Started.Equal(s.Process.Started):
		return errors.New("it has ended, and its number is another process's now")
	case process.Stopped:
		return errors.New("no signal is sent: it is " + process.State)
	case !catches(s.PID, sig):
		return fmt.Errorf("no signal is sent: it does not catch %s and would end", sig)
	}
	if err := unix.PidfdSendSignal(pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("send %s: %w", sig, err)
	}
	return nil
}

// catches tells whether a process has a handler for a signal (proc_pid_status(5)).
func catches(pid int, sig unix.Signal) bool {
	text, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return false
	}
	var mask uint64
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "SigCgt: %x", &mask); n == 1 {
			return mask&(1<<(uint(sig)-1)) != 0
		}
	}
	return false
}
