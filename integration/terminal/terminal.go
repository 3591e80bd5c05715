// Package terminal runs programs on terminals of their own, for tests of what a
// person sees and types.
package terminal

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds the wait for a text. It is for a machine that is emulated in
// software; nothing waits for it to pass.
const patience = time.Minute

// Terminal is a program that runs on a terminal, and the person before it. Its
// methods fail the test that it was started for.
type Terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	read   chan struct{} // closed when the program's side is closed and all is read

	mu     sync.Mutex
	screen strings.Builder // all that was ever shown
	grown  chan struct{}   // closed and replaced with every piece
}

// Start starts cmd on a new terminal of that size. The program leads a
// session of its own, as it would after a login.
func Start(t *testing.T, cmd *exec.Cmd, rows, columns uint16) *Terminal {
	t.Helper()
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	tty := &Terminal{t: t, cmd: cmd, master: master, read: make(chan struct{}), grown: make(chan struct{})}
	tty.Resize(rows, columns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		master.Close()
		t.Fatal(err)
	}
	go tty.watch() // ends when no program has the terminal open
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		master.Close()
	})
	return tty
}

// openPTY makes a terminal: pts(4).
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	return master, slave, nil
}

// watch takes what is shown.
func (tty *Terminal) watch() {
	defer close(tty.read)
	piece := make([]byte, 32<<10)
	for {
		n, err := tty.master.Read(piece)
		tty.mu.Lock()
		tty.screen.Write(piece[:n])
		close(tty.grown)
		tty.grown = make(chan struct{})
		tty.mu.Unlock()
		if err != nil {
			return // EIO: the last one who had the terminal open has closed it
		}
	}
}

// Shown is all that the terminal has shown so far.
func (tty *Terminal) Shown() string {
	tty.mu.Lock()
	defer tty.mu.Unlock()
	return tty.screen.String()
}

// Expect waits until the terminal has shown text.
func (tty *Terminal) Expect(text string) {
	tty.t.Helper()
	tty.expect(text, nil)
}

// ExpectResized waits until the terminal has shown text, which tells that its
// new size was seen. The program is told of the size until then: ctr and docker
// set the first size before they listen for the next, and may have been deaf
// when the window changed.
func (tty *Terminal) ExpectResized(text string) {
	tty.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	tty.expect(text, again.C)
}

func (tty *Terminal) expect(text string, resized <-chan time.Time) {
	tty.t.Helper()
	ctx, cancel := context.WithTimeout(tty.t.Context(), patience)
	defer cancel()
	for {
		tty.mu.Lock()
		screen, grown := tty.screen.String(), tty.grown
		tty.mu.Unlock()
		if strings.Contains(screen, text) {
			return
		}
		select {
		case <-grown:
		case <-resized:
			tty.Signal(unix.SIGWINCH)
		case <-tty.read:
			if !strings.Contains(tty.Shown(), text) {
				tty.t.Fatalf("the terminal is closed and did not show %q but:\n%s", text, tty.Shown())
			}
			return
		case <-ctx.Done():
			tty.t.Fatalf("the terminal does not show %q but:\n%q", text, screen)
		}
	}
}

// Write types text.
func (tty *Terminal) Write(text string) {
	tty.t.Helper()
	if _, err := tty.master.WriteString(text); err != nil {
		tty.t.Fatalf("type %q: %v", text, err)
	}
}

// Resize changes the window; the kernel tells the program by SIGWINCH.
func (tty *Terminal) Resize(rows, columns uint16) {
	tty.t.Helper()
	size := &unix.Winsize{Row: rows, Col: columns}
	if err := unix.IoctlSetWinsize(int(tty.master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		tty.t.Fatal(err)
	}
}

// Signal sends the program a signal that no key stands for.
func (tty *Terminal) Signal(sig os.Signal) {
	tty.t.Helper()
	if err := tty.cmd.Process.Signal(sig); err != nil {
		tty.t.Fatal(err)
	}
}

// End waits for the end of the program and gives its exit status.
func (tty *Terminal) End() int {
	tty.t.Helper()
	tty.cmd.Wait()
	<-tty.read
	return tty.cmd.ProcessState.ExitCode()
}
