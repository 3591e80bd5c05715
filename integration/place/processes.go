package place

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process is one process of a place, as /proc told at the time of asking.
type Process struct {
	PID     int
	Command string // arguments separated by blanks
}

func (p Process) String() string { return fmt.Sprintf("process %d (%s)", p.PID, p.Command) }

// Processes lists what runs in the place: processes that were started there
// (they carry the mark), that name a file of the place on their command line
// (shims, OCI runtimes, ctr), or that are in one of its cgroups (containers).
// Zombies are listed too; the calling process is not.
func (p *Place) Processes() []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var list []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if command, ok := p.owns(pid); ok {
			list = append(list, Process{PID: pid, Command: command})
		}
	}
	return list
}

// owns says whether pid belongs to the place, and what it is.
func (p *Place) owns(pid int) (command string, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return "", false
	}
	comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	cgroups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))

	command = string(bytes.TrimSpace(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
	if command == "" {
		command = strings.TrimSpace(string(comm))
	}
	if p.Dir == "" || p.Namespace == "" {
		return "", false // of no place: every process would match
	}
	ok = bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+EnvMark+"="+p.Dir+"\x00")) ||
		bytes.Contains(cmdline, []byte(p.Dir+"/")) || bytes.Contains(cmdline, []byte(p.Dir+"\x00")) ||
		bytes.Contains(append(cgroups, '\n'), []byte("/"+p.Namespace+"/")) ||
		bytes.Contains(append(cgroups, '\n'), []byte("/"+p.Namespace+"\n"))
	return command, ok
}

// kill sends SIGKILL to pid if it still is a process of the place. The pidfd
// makes sure that what was looked at is what is hit.
func (p *Place) kill(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if _, ok := p.owns(pid); ok {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}
