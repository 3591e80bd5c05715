package docker

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
)

// machine is a mount and a network namespace whose root is a tree of Debian's
// packages: what runs in it sees the programs and the C library of that
// release, folders /run, /etc and /var of its own, and no network. The place's
// folder is at the same path inside and outside.
type machine struct {
	*place.Place

	holder *exec.Cmd      // keeps the namespaces
	stop   io.WriteCloser // the holder ends with it
}

//go:embed machine.sh
var machineScript string

// newMachine makes the machine of a place. It ends with the place.
func newMachine(p *place.Place, tree string) (*machine, error) {
	for _, dir := range []string{"machine", "run", "bin"} {
		if err := os.MkdirAll(p.Path(dir), 0o755); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--propagation", "private",
		"sh", "-c", machineScript, "machine", tree, p.Dir, programs.Busybox)
	cmd.Env = p.Environ()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	stop, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a machine: %w", err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		cmd.Wait()
		return nil, fmt.Errorf("make a machine: %v, %q, %s", err, line, stderr.String())
	}
	return &machine{Place: p, holder: cmd, stop: stop}, nil
}

// pid is the process that keeps the machine.
func (m *machine) pid() int { return m.holder.Process.Pid }

// command is a program of the machine, ready to run. It is killed when ctx ends.
func (m *machine) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"--target", strconv.Itoa(m.pid()), "--mount", "--net", "--", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	cmd.Dir = "/"
	cmd.Env = append(m.Environ(), "PATH="+m.Path("bin")+":/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// mounts lists what is mounted inside for containers: below the place's folder.
func (m *machine) mounts() []string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(m.pid()), "mountinfo"))
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if field := strings.Fields(line); len(field) > 4 && strings.HasPrefix(field[4], m.Dir+"/") {
			found = append(found, "mount "+field[4])
		}
	}
	return found
}
