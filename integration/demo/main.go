// Command demo shows one container's whole life on a private containerd with
// the shim of this repository, step by step, and leaves nothing behind: not when
// it fails, nor on Ctrl-C, nor when it is killed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

const (
	shimRuntime = "io.containerd.cleat.v2"
	// demoTime bounds the demo, setupTime the building before it on a machine
	// that has nothing yet.
	demoTime  = 2 * time.Minute
	setupTime = 20 * time.Minute
	// settleTime is what the shim and containerd get to clean up after the last
	// command has been answered.
	settleTime = 5 * time.Second
)

func main() {
	place.KeepIfAsked()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := demo(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("containers with their own namespaces and cgroups need root")
	}
	programs, err := setUp(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, demoTime, fmt.Errorf("no end within %s", demoTime))
	defer cancel()

	fmt.Print("\nA private containerd, with root, state, sockets and configuration of its own.\n")
	d, err := daemon.Start(ctx, daemon.Config{Tools: programs, Runtime: shimRuntime})
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
			fmt.Print("\nCleaning up.\n")
		}
		err = errors.Join(err, d.Remove())
	}()
	fmt.Printf("It runs as process %d in %s.\n", d.PID(), d.Dir)

	archive := d.Path("image.tar")
	img, err := image.New(programs.Busybox)
	if err != nil {
		return err
	}
	if err := image.WriteFile(img, image.Name, archive); err != nil {
		return err
	}
	t := &teller{ctx: ctx, daemon: d}
	life(t, archive)
	if t.err != nil {
		return t.err
	}
	return nothingLeft(ctx, d)
}

func setUp(ctx context.Context) (tools.Tools, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTime)
	defer cancel()
	fmt.Println("What the demo runs: the shim, containerd, ctr, runc. The first build takes a minute or two.")
	return tools.Ensure(ctx, os.Stdout)
}

// nothingLeft looks for what the demo may have left on this machine.
func nothingLeft(ctx context.Context, d *daemon.Daemon) error {
	fmt.Print("\n━━ What is left: processes, mounts, cgroups, sockets, FIFOs, bundles, snapshots, leases\n")
	left := d.Settled(ctx, settleTime)
	for _, l := range left {
		fmt.Println("  ", l)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d things are left over", len(left))
	}
	fmt.Println("   nothing")
	return nil
}
