package daemon

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// Client is a Go client of this containerd. It is opened once and again after
// the daemon was killed; the daemon closes it. Its default namespace is
// where the daemon's containers are, its default runtime the daemon's.
func (d *Daemon) Client() (*containerd.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client != nil {
		return d.client, nil
	}
	client, err := containerd.New(d.Address(),
		containerd.WithDefaultNamespace(d.namespace()),
		containerd.WithDefaultRuntime(d.config.Runtime),
		containerd.WithTimeout(readyTime))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", d.Address(), err)
	}
	d.client = client
	return client, nil
}

func (d *Daemon) closeClient() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client != nil {
		d.client.Close()
		d.client = nil
	}
}

// Context carries the namespace of the daemon's containers, which the services below the client
// want.
func (d *Daemon) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, d.namespace())
}

// Ctr is the command `ctr args...` for this containerd, ready to run. FIFOs
// that it makes are in the place. It is killed when ctx ends.
func (d *Daemon) Ctr(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{"--address", d.Address(), "--namespace", d.namespace()}, d.withFifos(args)...)
	cmd := exec.CommandContext(ctx, d.config.Tools.Ctr, all...)
	cmd.Dir = d.Dir
	cmd.Env = append(d.Environ(d.config.Tools.Dir), "TERM=xterm")
	// A killed ctr's children (CNI plugins) must not keep Wait waiting.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// withFifos adds the option that keeps ctr's FIFOs in the place, where the
// subcommand makes any.
func (d *Daemon) withFifos(args []string) []string {
	takes := [][]string{{"run"}, {"tasks", "start"}, {"task", "start"}, {"tasks", "exec"}, {"task", "exec"}}
	for _, sub := range takes {
		if len(args) >= len(sub) && slices.Equal(args[:len(sub)], sub) && !slices.Contains(args, "--log-uri") {
			return slices.Concat(sub, []string{"--fifo-dir", d.Fifos()}, args[len(sub):])
		}
	}
	return args
}
