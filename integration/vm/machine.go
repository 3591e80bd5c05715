// Package vm runs the integration tests on a cgroup v2 system, whatever this
// machine has: in a virtual machine with Debian's kernel, emulated by qemu in
// software, so that neither /dev/kvm nor a second machine is needed. The whole
// system is one initramfs; there is no disk and no network but loopback.
//
// The tests of this package are those of package integration, run in there
// and reported here, one by one and while they run.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
	"github.com/cleatrun/cleat/integration/vm/job"
)

const (
	processors = "2"
	memory     = "4096" // MiB; the content of the initramfs is part of it

	// Everything that can be emulated, but for what makes Linux slower when
	// it is: "rep movsb" for every copy, a fifth level of page tables.
	cpu = "max,-erms,-fsrm,la57=off"
)

// errSilent is the end of a machine that did not say that its job had ended.
var errSilent = errors.New("the machine ended before its job did")

// machine is one virtual machine.
type machine struct {
	place     *place.Place // holds its files and marks its process
	guest     tools.Guest
	initramfs string
	systemd   bool
	threads   string // processors of a core; "" for one

	output io.Writer                               // gets what the job writes
	booted func(kernel string, took time.Duration) // called when the job begins
	worked time.Duration                           // processor time, when it has ended
}

// run boots the machine and returns when it is gone, with the exit status of
// its job. When ctx ends first, the machine does too. Should this process die,
// the place's keeper ends the machine.
func (m *machine) run(ctx context.Context) (status int, err error) {
	began := time.Now()
	ours, theirs, err := socketpair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	console := m.place.Path("console.log")
	args := append(slices.Clone(m.guest.Emulator[1:]), m.arguments(console)...)
	qemu := exec.CommandContext(ctx, m.guest.Emulator[0], args...)
	qemu.Dir = m.place.Dir
	qemu.Env = m.place.Environ()
	qemu.ExtraFiles = []*os.File{theirs} // file descriptor 3
	var complaints bytes.Buffer
	qemu.Stderr = &complaints
	// Ctrl-C in the terminal is for our owner, whose end ends the machine.
	qemu.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	err = qemu.Start()
	theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("start qemu: %w", err)
	}
	status, err = m.follow(bufio.NewReaderSize(ours, 64<<10), began)
	if err != nil {
		// Nothing more is to be had from it. It may be gone already.
		qemu.Process.Kill()
		err = errors.Join(err, context.Cause(ctx))
	}
	// After its last line a machine powers off.
	if wait := qemu.Wait(); err == nil && wait != nil {
		err = fmt.Errorf("qemu: %w", wait)
	}
	m.worked = qemu.ProcessState.UserTime() + qemu.ProcessState.SystemTime()
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, complaints.Bytes(), tail(console))
	}
	return status, err
}

// arguments is qemu's command line. The job's output is at file descriptor 3.
func (m *machine) arguments(console string) []string {
	kernel := []string{
		"console=ttyS0", "loglevel=4", // warnings; each byte of the console is slow
		"panic=-1", "oops=panic", // ends the machine, so that nobody waits for it
		// What costs time, above all in an emulator, and no test is about.
		"mitigations=off", "init_on_alloc=0", "audit=0", "lsm=", "nokaslr", "nowatchdog",
		"hardened_usercopy=off", "randomize_kstack_offset=off",
		// Namespaces, mounts and cgroups are waited for when they go.
		"rcupdate.rcu_expedited=1",
		"tsc=reliable",
		"cgroup_no_v1=all",
	}
	if m.systemd {
		kernel = append(kernel, "systemd.unit="+service, "systemd.show_status=0",
			"systemd.mask=ldconfig.service") // there is no ldconfig
	}
	processors := processors
	if m.threads != "" {
		processors += ",threads=" + m.threads
	}
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
		"-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", processors, "-m", memory,
		"-kernel", m.guest.Kernel, "-initrd", m.initramfs, "-append", strings.Join(kernel, " "),
		"-chardev", "file,id=console,path=" + console, "-serial", "chardev:console",
		"-chardev", "socket,id=results,fd=3",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=results,name=" + job.Port,
	}
}

// follow reads what the machine sends until it says that the job has ended.
func (m *machine) follow(lines *bufio.Reader, began time.Time) (status int, err error) {
	for {
		line, err := lines.ReadSlice('\n') // a longer line comes in parts
		if kernel, ok := job.ParseBegan(string(line)); ok {
			m.booted(kernel, time.Since(began))
			continue
		}
		if status, ok := job.ParseEnded(string(line)); ok {
			return status, nil
		}
		if _, err := m.output.Write(line); err != nil {
			return 0, fmt.Errorf("take the machine's output: %w", err)
		}
		if err != nil && err != bufio.ErrBufferFull {
			return 0, errSilent
		}
	}
}

// socketpair makes the two ends of the machine's port.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the machine's port: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "port"), os.NewFile(uintptr(fds[1]), "port"), nil
}

// tail is the end of what the machine wrote to its console.
func tail(console string) string {
	const most = 16 << 10
	text, err := os.ReadFile(console)
	if err != nil {
		return err.Error()
	}
	return "the machine's console:\n" + string(text[max(0, len(text)-most):])
}
