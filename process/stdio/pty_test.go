package stdio

// The part of an OCI runtime in a terminal: a real pty, a process that leads a
// session on it, and its master sent through the console socket.

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// newPTY makes a pty. Output is not translated, so that it can be compared.
func newPTY(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, "make pty", err)
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, "name of the pty", err)
	must(t, "unlock the pty", unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, "open the pty", err)
	termios, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	must(t, "settings of the pty", err)
	termios.Oflag &^= unix.OPOST
	must(t, "settings of the pty", unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, termios))
	return master, slave
}

// noEcho has the terminal not send back what is typed.
func noEcho(t testing.TB, terminal *os.File, raw bool) {
	t.Helper()
	termios, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	must(t, "settings of the pty", err)
	termios.Lflag &^= unix.ECHO
	if raw {
		termios.Lflag &^= unix.ICANON | unix.ISIG | unix.IEXTEN
		termios.Iflag = 0
		termios.Cc[unix.VMIN], termios.Cc[unix.VTIME] = 1, 0
	}
	must(t, "settings of the pty", unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, termios))
}

// onTerminal starts the process on a new terminal and hands the master over.
func (p *proc) onTerminal() {
	p.t.Helper()
	master, slave := newPTY(p.t)
	defer master.Close()
	defer slave.Close()
	if p.quiet || p.raw {
		noEcho(p.t, slave, p.raw)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	p.start()
	sendConsole(p.t, p.streams.ConsoleSocket(), unix.UnixRights(int(master.Fd())))
}

// sendConsole sends what an OCI runtime sends: the terminal's name, and rights.
func sendConsole(t testing.TB, socket string, rights []byte) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, "connect to the console socket", err)
	defer conn.Close()
	_, _, err = conn.WriteMsgUnix([]byte("/dev/ptmx"), rights, nil)
	must(t, "send the terminal", err)
}
