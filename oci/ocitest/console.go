package ocitest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// consoleVariable makes the test binary do for the script what a shell cannot:
// run a program in a new terminal and send its master to that socket.
const consoleVariable = "OCITEST_CONSOLE"

// Console is called first in TestMain. In a test binary that the script has
// started it does that work, tells the pid, and does not return.
func Console() {
	socket := os.Getenv(consoleVariable)
	if socket == "" {
		return
	}
	os.Unsetenv(consoleVariable)
	if err := inTerminal(socket, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func inTerminal(socket string, args []string) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		return err
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix([]byte(slave.Name()), unix.UnixRights(int(master.Fd())), nil); err != nil {
		return err
	}
	fmt.Println(cmd.Process.Pid)
	return nil
}
