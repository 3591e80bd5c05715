package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// network is a network namespace of a test's own, with a root folder in which
// ctr finds CNI's plugins and their configuration where it looks for them. A
// process holds both; nothing of it is seen from outside.
type network struct {
	d    *daemon.Daemon
	host int // the holder
}

// The bridge's configuration; its address is the "host" of the containers.
const (
	bridgeAddress = "10.99.0.1"
	bridgeConfig  = `{
  "cniVersion": "1.0.0", "name": "test",
  "plugins": [{
    "type": "bridge", "bridge": "test0", "isGateway": true,
    "ipam": {"type": "host-local", "dataDir": "/var/lib/cni/addresses", "subnet": "10.99.0.0/24"}
  }]
}`
)

// newNetwork makes a network with one bridge, on which the host answers
// who asks at port 80.
func newNetwork(t *testing.T, d *daemon.Daemon) *network {
	t.Helper()
	root, err := os.MkdirTemp(d.Dir, "net-")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`set -e
b=%s root=%s
$b mount -t tmpfs tmpfs $root
cd $root
$b mkdir -p programs opt/cni/bin etc/cni/net.d var/lib/cni proc sys dev tmp
$b mount -o bind %s programs
$b mount -o bind %s opt/cni/bin
for dir in proc sys dev tmp; do $b mount -o rbind /$dir $dir; done
echo '%s' >etc/cni/net.d/test.conflist
$b ip link set lo up
exec $b chroot . /programs/busybox sh -c 'echo ready; exec /programs/busybox nc -ll -p 80 -e /programs/busybox echo the host'
`, programs.Busybox, root, programs.Dir, programs.CNI, bridgeConfig)
	cmd := exec.Command(programs.Busybox, "sh", "-c", script)
	cmd.Env = d.Environ()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("prepare a network namespace: %q, %v", line, err)
	}
	go io.Copy(io.Discard, out) // ends with the holder
	return &network{d: d, host: cmd.Process.Pid}
}

// command is a program of the programs folder, to be run in the network.
func (n *network) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	enter := []string{"nsenter", "-t", strconv.Itoa(n.host), "-n", "-m", "-r", "/programs/" + program}
	cmd := exec.CommandContext(ctx, programs.Busybox, append(enter, args...)...)
	cmd.Env = n.d.Environ()
	return cmd
}

// ctr is ctr in the network.
func (n *network) ctr(ctx context.Context, args ...string) *exec.Cmd {
	return n.command(ctx, "ctr", n.d.Ctr(ctx, args...).Args[1:]...)
}

// TestRunWithCNI gives two containers addresses on a bridge, as ctr --cni does:
// they reach each other and the host, and the host reaches them.
func TestRunWithCNI(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	ctx := bounded(t)
	n := newNetwork(t, d)
	must := func(cmd *exec.Cmd) string {
		t.Helper()
		stdout, stderr, code := finish(t, cmd)
		if code != 0 {
			t.Fatalf("%s ended with %d:\n%s%s", strings.Join(cmd.Args, " "), code, stdout, stderr)
		}
		return stdout
	}
	ask := func(address string) []string { return []string{"nc", "-w", "20", address, "80"} }

	must(n.ctr(ctx, run([]string{"-d", "--cni"}, "cni-server", "nc", "-ll", "-p", "80", "-e", "echo", "the container")...))
	address := must(d.Ctr(ctx, "tasks", "exec", "--exec-id", "address", "cni-server", "sh", "-c",
		"ip -4 -o address show eth0 | sed 's/.* inet //; s,/.*,,'"))
	address = strings.TrimSpace(address)
	if !strings.HasPrefix(address, "10.99.0.") {
		t.Fatalf("the container has the address %q", address)
	}
	// It may need a moment until it listens.
	eventually(t, func() error {
		stdout, stderr, code := finish(t, n.command(ctx, "busybox", ask(address)...))
		if stdout != "the container\n" {
			return fmt.Errorf("the host asks the container and gets %q (status %d), %s", stdout, code, stderr)
		}
		return nil
	})
	for who, c := range map[string]struct{ address, want string }{
		"other container": {address, "the container\n"},
		"host":            {bridgeAddress, "the host\n"},
	} {
		got := must(n.ctr(ctx, run([]string{"--rm", "--cni"}, "cni-client", ask(c.address)...)...))
		if got != c.want {
			t.Errorf("the client asks the %s and gets %q, want %q", who, got, c.want)
		}
	}

	must(n.ctr(ctx, "tasks", "kill", "-s", "SIGKILL", "cni-server")) // removes it from the network
	eventually(t, func() error {
		if task := listed(t, d, "cni-server"); task.status != "STOPPED" {
			return fmt.Errorf("the task is %+v", task)
		}
		return nil
	})
	deleteTask(t, d, "cni-server")
	must(d.Ctr(ctx, "containers", "rm", "cni-server"))
	eventually(t, func() error { // the kernel removes network namespaces later
		if links := must(n.command(ctx, "busybox", "ip", "-o", "link")); strings.Contains(links, "veth") {
			return fmt.Errorf("there still are links to containers:\n%s", links)
		}
		return nil
	})
	for _, id := range []string{"cni-server", "cni-client"} {
		nothingLeftOf(t, d, id)
	}
}
