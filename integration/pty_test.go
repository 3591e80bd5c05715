package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a program that runs on a terminal, and the person before it.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	read   chan struct{} // closed when the program's side is closed and all is read

	mu     sync.Mutex
	screen strings.Builder // all that was ever shown
	grown  chan struct{}   // closed and replaced with every piece
}

// onTerminal starts cmd on a new terminal of that size. The program leads a
// session of its own, as it would after a login.
func onTerminal(t *testing.T, cmd *exec.Cmd, rows, columns uint16) *terminal {
	t.Helper()
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	tty := &terminal{t: t, cmd: cmd, master: master, read: make(chan struct{}), grown: make(chan struct{})}
	tty.resize(rows, columns)
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
func (tty *terminal) watch() {
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

// shown is all that the terminal has shown so far.
func (tty *terminal) shown() string {
	tty.mu.Lock()
	defer tty.mu.Unlock()
	return tty.screen.String()
}

// expect waits until the terminal has shown text.
func (tty *terminal) expect(text string) {
	tty.t.Helper()
	ctx := within(tty.t, soon)
	for {
		tty.mu.Lock()
		screen, grown := tty.screen.String(), tty.grown
		tty.mu.Unlock()
		if strings.Contains(screen, text) {
			return
		}
		select {
		case <-grown:
		case <-tty.read:
			if !strings.Contains(tty.shown(), text) {
				tty.t.Fatalf("the terminal is closed and did not show %q but:\n%s", text, tty.shown())
			}
			return
		case <-ctx.Done():
			tty.t.Fatalf("the terminal does not show %q but:\n%q", text, screen)
		}
	}
}

// write types text.
func (tty *terminal) write(text string) {
	tty.t.Helper()
	if _, err := tty.master.WriteString(text); err != nil {
		tty.t.Fatalf("type %q: %v", text, err)
	}
}

// resize changes the window; the kernel tells the program by SIGWINCH.
func (tty *terminal) resize(rows, columns uint16) {
	tty.t.Helper()
	size := &unix.Winsize{Row: rows, Col: columns}
	if err := unix.IoctlSetWinsize(int(tty.master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		tty.t.Fatal(err)
	}
}

// end waits for the end of the program and gives its exit status.
func (tty *terminal) end() int {
	tty.t.Helper()
	tty.cmd.Wait()
	<-tty.read
	return tty.cmd.ProcessState.ExitCode()
}
