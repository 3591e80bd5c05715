// Package daemon runs a private containerd: root, state, sockets, configuration
// and PATH of its own, in a place (package place) that is removed with all that
// was ever started in it. It can be killed and started again like a real one,
// and it is used like a real one: with ctr, the Go client, and by talking to
// its shims.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// Config is what a daemon is made from.
type Config struct {
	Tools tools.Tools

	// Runtime is the one that Client uses for containers that name none.
	Runtime string

	// Path holds folders that containerd searches for shims and OCI
	// runtimes before Tools.Dir.
	Path []string

	// Env are variables that containerd has, and its shims get.
	Env []string

	// Image is an image in a file that is imported at the start, "" for none.
	Image string

	// Kubernetes makes containerd serve a kubelet, nil for not.
	Kubernetes *Kubernetes

	// Relay makes the daemon keep what shims tell: see Daemon.Relay.
	Relay bool

	// StateInMemory puts all that a host has in /run into memory, as there.
	StateInMemory bool

	// Debug makes containerd and, through it, the shims verbose.
	Debug bool
}

// readyTime bounds the start of containerd. It takes a third of a second on an
// idle machine.
const readyTime = 60 * time.Second

// Daemon is one private containerd. Its methods may be called concurrently,
// but for those that end or start it.
type Daemon struct {
	*place.Place

	config Config
	ttrpc  string // where shims bring their events
	relay  *Relay // nil without Config.Relay
	log    *os.File
	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd has been waited for

	mu       sync.Mutex
	client   *containerd.Client
	baseline []string // records of containerd that are there without any container
}

// Start makes a place and runs a containerd in it. The caller ends it with
// Remove.
func Start(ctx context.Context, config Config) (*Daemon, error) {
	p, err := place.New()
	if err != nil {
		return nil, err
	}
	d := &Daemon{Place: p, config: config}
	d.ttrpc = d.Address() + ".ttrpc"
	if config.Relay {
		d.relay = newRelay()
	}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

func (d *Daemon) prepare(ctx context.Context) error {
	if d.config.StateInMemory {
		if err := d.Place.StateInMemory(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(d.Path("config.toml"), d.configuration(), 0o644); err != nil {
		return err
	}
	var err error
	if d.log, err = os.OpenFile(d.Path("containerd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	if err := d.Run(ctx); err != nil {
		return err
	}
	images := []string{d.config.Image}
	if k := d.config.Kubernetes; k != nil {
		images = append(images, k.PauseFile)
	}
	for _, file := range images {
		if file == "" {
			continue
		}
		if out, err := d.Ctr(ctx, "images", "import", file).CombinedOutput(); err != nil {
			return fmt.Errorf("import %s: %w: %s", file, err, out)
		}
	}
	return d.remember(ctx)
}

// Address is containerd's socket.
func (d *Daemon) Address() string { return d.Path("c.sock") }

// Relay is where events of shims pass through, nil without Config.Relay. Nothing
// passes after Run until its Listen.
func (d *Daemon) Relay() *Relay { return d.relay }

// PID is the process that Run started last.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Run starts containerd, for the first time or after Kill, and returns when it
// serves.
func (d *Daemon) Run(ctx context.Context) error {
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: d.Path("ready"), Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for containerd's word that it is ready: %w", err)
	}
	defer os.Remove(d.Path("ready"))
	defer ready.Close()

	if d.relay != nil {
		// An address for each life: shims of an earlier one must not find this
		// containerd past the relay.
		d.ttrpc += "2"
		if err := os.WriteFile(d.Path("config.toml"), d.configuration(), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.Command(d.config.Tools.Containerd, "--config", d.Path("config.toml"))
	cmd.Dir = d.Dir
	cmd.Env = append(d.Environ(append(d.config.Path, d.config.Tools.Dir)...), "NOTIFY_SOCKET="+d.Path("ready"))
	cmd.Env = append(cmd.Env, d.config.Env...)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	// Ctrl-C in the terminal is for our owner, which then removes the place.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	ended := make(chan struct{})
	go func() { // ends with the process, which the place ends
		cmd.Wait()
		close(ended)
	}()
	d.cmd, d.ended = cmd, ended

	said := make(chan error, 1)
	go func() { // ends at the deadline, when the socket is closed, or before
		said <- waitReady(ready)
	}()
	select {
	case err := <-said:
		if err != nil {
			return fmt.Errorf("wait for containerd: %w\n%s", err, d.Log())
		}
		if d.relay != nil {
			return d.relay.interpose(d.ttrpc)
		}
		return nil
	case <-ended:
		return fmt.Errorf("containerd ended at once: %s\n%s", cmd.ProcessState, d.Log())
	case <-ctx.Done():
		return fmt.Errorf("wait for containerd: %w", ctx.Err())
	}
}

// waitReady reads what a daemon tells a service manager (sd_notify(3)) until
// it says that it is ready.
func waitReady(conn *net.UnixConn) error {
	conn.SetReadDeadline(time.Now().Add(readyTime))
	message := make([]byte, 4096)
	for {
		n, err := conn.Read(message)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(message[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// Kill ends containerd by SIGKILL, as a crash or the OOM killer would. Shims
// and containers go on.
func (d *Daemon) Kill() error {
	// The client's connection ends with containerd, and not before: a containerd
	// that still lives would undo what was asked for by it.
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill containerd: %w", err)
	}
	<-d.ended
	d.closeClient()
	if d.relay != nil {
		return d.relay.stop()
	}
	return nil
}

// Stop ends containerd by SIGTERM, as its service manager would. Shims and
// containers go on.
func (d *Daemon) Stop() error {
	d.closeClient()
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop containerd: %w", err)
	}
	select {
	case <-d.ended:
		if d.relay != nil {
			return d.relay.stop()
		}
		return nil
	case <-time.After(readyTime):
		return fmt.Errorf("containerd (process %d) does not end", d.PID())
	}
}

// Become makes the next Run start another release of containerd, on what the
// one before has left.
func (d *Daemon) Become(t tools.Tools) error {
	d.config.Tools = t
	return os.WriteFile(d.Path("config.toml"), d.configuration(), 0o644)
}

// Remove ends containerd and everything it ever started, and removes the place.
func (d *Daemon) Remove() error {
	d.closeClient()
	if d.relay != nil {
		d.relay.stop()
	}
	err := d.Place.Remove()
	if d.cmd != nil {
		<-d.ended
	}
	if d.log != nil {
		d.log.Close()
	}
	return err
}

// Log is what containerd and the shims have written so far.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(d.Path("containerd.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
