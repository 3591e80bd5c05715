package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/vm/job"
)

// path is where programs are looked for that nobody names in full.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run runs the job's command with the port to the host as its output, and says
// there when it begins and how it ended.
func run(j job.Job) error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("ask for the kernel's name: %w", err)
	}
	if _, err := port.WriteString(job.Began(unix.ByteSliceToString(name.Release[:]))); err != nil {
		return fmt.Errorf("tell the host: %w", err)
	}
	status, err := runCommand(j, port)
	if err != nil {
		fmt.Fprintf(port, "\nrun %q: %v\n", j.Command, err)
	}
	_, err = port.WriteString(job.Ended(status))
	return err
}

// openPort opens the virtio-serial port that has the agreed name.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(name)) == job.Port {
			device := filepath.Join("/dev", filepath.Base(filepath.Dir(file)))
			return os.OpenFile(device, os.O_WRONLY, 0)
		}
	}
	return nil, fmt.Errorf("none of the virtio-serial ports %q is called %s", names, job.Port)
}

// runCommand runs the job's command and returns its exit status. It reaps
// every process that ends meanwhile: when this is init, all orphans are its
// children, and a test that looks for zombies must not find them.
func runCommand(j job.Job, output *os.File) (status int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return -1, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(j.Command[0], j.Command, &syscall.ProcAttr{
		Dir:   j.Dir,
		Env:   append([]string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8", "TERM=xterm"}, j.Env...),
		Files: []uintptr{null.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return -1, err
	}
	for {
		var end unix.WaitStatus
		ended, err := unix.Wait4(-1, &end, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return -1, fmt.Errorf("wait: %w", err)
		case ended == pid && end.Signaled():
			return 128 + int(end.Signal()), nil
		case ended == pid:
			return end.ExitStatus(), nil
		}
	}
}
