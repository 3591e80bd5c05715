// Command guest is the first program of a virtual machine of package vm. As
// the machine's init it makes the root filesystem one that containers can be
// started from, and then either runs the job itself or becomes systemd, which
// starts it again as `guest run`.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/vm/job"
)

func main() {
	if err := work(os.Args[1:]); err != nil {
		// The machine's console; the host shows it when no results came.
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	powerOff()
}

// work does what main promises; whenever it returns the machine has no more to
// do.
func work(args []string) error {
	if len(args) > 0 && args[0] == "run" {
		j, err := job.Read()
		if err != nil {
			return err
		}
		return run(j)
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("process %d is neither init nor asked to run", os.Getpid())
	}
	if err := leaveInitramfs(); err != nil {
		return err
	}
	j, err := job.Read()
	if err != nil {
		return err
	}
	if j.Init == job.Systemd {
		const systemd = "/usr/lib/systemd/systemd"
		return fmt.Errorf("become %s: %w", systemd, unix.Exec(systemd, []string{systemd}, []string{"PATH=" + path}))
	}
	if err := system(); err != nil {
		return err
	}
	return run(j)
}

// powerOff ends the machine at once: nothing in it has to be kept. It ends
// also when this is not init.
func powerOff() {
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "guest: power off:", err)
	os.Exit(1)
}
