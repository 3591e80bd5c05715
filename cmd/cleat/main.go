// Command cleat is the operator's tool: which shims run on this host, what keeps
// them busy, whether the host is fit for them, and how they get another program.
// It works without containerd.
//
// Each command has a file; terminal.go is how they write. What they do is in the
// packages below: shims finds and asks shims, procdump tells what the kernel
// knows of one, host examines the host, leftovers finds and removes what dead
// shims have left.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/shim/version"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Set by the linker.
var release, revision string

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	version.Release, version.Revision = release, revision
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	c := new(cli)
	root := c.root()
	if err := root.ExecuteContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "cleat:", printable(err.Error()))
		if !c.understood {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailure)
	}
}

// cli is what all commands are told.
type cli struct {
	host shims.Host
	json bool
	// understood tells that the command line was, and that a command has begun.
	understood bool
}

const about = `cleat looks after the shims of this host: the processes that serve containerd's
containers. It finds those of cleat under whatever name they run, in all
namespaces and of all containerds, and needs no containerd for it. Shims of
another make are told as such, and left alone.

An ID is that of a container or pod, the process of a shim, or the beginning of
an id that nothing else begins with.

Exit code: 0 if all is well, 1 if not, 2 if the command line is not understood.`

func (c *cli) root() *cobra.Command {
	name, _ := version.Get()
	root := &cobra.Command{
		Use: "cleat", Short: "Look after the shims of this host", Long: about,
		Version:       name,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&c.host.Namespace, "namespace", "n", "", "only this namespace of containerd's")
	flags.BoolVar(&c.json, "json", false, "write JSON; times are nanoseconds, memory is bytes")
	flags.DurationVar(&c.host.Limit, "timeout", 2*time.Second, "how long a shim may take to answer")
	flags.StringSliceVar(&c.host.SocketDirs, "socket-dir", nil, "look for sockets of shims in this folder, instead of the usual ones")
	root.MarkPersistentFlagDirname("socket-dir")
	root.AddCommand(c.ps(), c.inspect(), c.dump(), c.upgrade(), c.doctor(), c.man())
	for _, command := range root.Commands() {
		c.begin(command)
	}
	return root
}

// begin notes when a command begins, which is when its command line is
// understood.
func (c *cli) begin(command *cobra.Command) {
	run := command.RunE
	command.RunE = func(command *cobra.Command, args []string) error {
		if c.host.Limit <= 0 {
			return fmt.Errorf("--timeout %s: it must be longer than nothing", c.host.Limit)
		}
		c.understood = true
		return run(command, args)
	}
}

// complete offers the ids of shims and containers.
func (c *cli) complete(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	found, err := c.host.Find(command.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var ids []string
	for _, s := range found {
		if s.Kind == shims.Cleat && s.ID != "" {
			ids = append(ids, cobra.CompletionWithDesc(s.ID, s.Namespace))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
