package main

// The limit of output: the same program writes, the same client reads, and nothing
// is between.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// byHandName is the name of results of what is done without any shim or runtime.
const byHandName = "by hand"

// largest is the size of a FIFO that a limit has: pipe-max-size, as it is without
// settings (pipe(7)).
const largest = 1 << 20

// bounds are ways to read by hand, which tell what it is that limits output.
var bounds = []struct {
	metric, what string
	pipe, piece  int
}{
	{"output-bounds-64-32", "pipe of 64 KiB, read by 32 KiB", 64 << 10, 32 << 10},
	{"output-bounds-64-1024", "pipe of 64 KiB, read by 1 MiB", 64 << 10, 1 << 20},
	{"output-bounds-1024-32", "pipe of 1 MiB, read by 32 KiB", 1 << 20, 32 << 10},
	{"output-bounds-1024-1024", "pipe of 1 MiB, read by 1 MiB", 1 << 20, 1 << 20},
}

// writeByHand lets what the container runs write into a FIFO that is read as that of
// a container is: in a container of the OCI runtime, which has cgroups that the kernel
// shares processors by, and without any.
func (b *bench) writeByHand(w writing) error {
	if err := b.writeInto(byHandName, w, func(stdout *os.File) (*exec.Cmd, error) {
		cmd := exec.CommandContext(b.ctx, b.tools.Busybox, w.command()...)
		cmd.Stdout = stdout
		return cmd, cmd.Run()
	}); err != nil {
		return err
	}
	return adopting(func() error { return b.writeContained(w) })
}

// writeContained lets the OCI runtime give a container the FIFO itself, which it does
// for one that is detached.
func (b *bench) writeContained(w writing) (err error) {
	id := b.name("output")
	bundle, err := b.bundle(id, "sh", "-c", w.script("busybox "))
	if err != nil {
		return err
	}
	said, err := os.Create(filepath.Join(bundle, "said")) // a pipe would be the container's, too
	if err != nil {
		return err
	}
	defer said.Close()
	runc := func(ctx context.Context, stdout *os.File, args ...string) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, b.tools.Runc, append([]string{"--root", b.daemon.RuntimeState()}, args...)...)
		cmd.Dir, cmd.Env, cmd.Stderr = bundle, b.daemon.Environ(b.tools.Dir), said
		if stdout != nil {
			cmd.Stdout = stdout
		}
		err := cmd.Run()
		if err != nil {
			text, _ := os.ReadFile(said.Name())
			err = fmt.Errorf("%w: %s", err, text)
		}
		return cmd, err
	}
	defer func() {
		_, undone := runc(context.WithoutCancel(b.ctx), nil, "delete", "--force", id)
		err = errors.Join(err, undone, os.RemoveAll(bundle))
	}()
	return b.writeInto("runc", w, func(stdout *os.File) (*exec.Cmd, error) { return runc(b.ctx, stdout, "run", "--detach", id) })
}

func (b *bench) writeInto(name string, w writing, run func(stdout *os.File) (*exec.Cmd, error)) (err error) {
	taken := newMeter(w.all())
	stdio, err := b.fifos(taken)(b.name("output"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stdio.Close()) }()
	defer stdio.Cancel()
	stdout, err := os.OpenFile(stdio.Config().Stdout, os.O_RDWR, 0) // both ends, as a shim holds them
	if err != nil {
		return err
	}
	defer stdout.Close()
	if _, err := unix.FcntlInt(stdout.Fd(), unix.F_SETPIPE_SZ, largest); err != nil {
		return os.NewSyscallError("F_SETPIPE_SZ", err)
	}
	client := ownCPU()
	cmd, err := run(stdout)
	if err != nil {
		return fmt.Errorf("run %s: %w", cmd, err)
	}
	select {
	case <-taken.full:
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	b.add(w.metric+".rate", name, taken.rate())
	b.add(w.metric+".client", name, w.perGiB(ownCPU()-client))
	if name == byHandName { // else it is what the runtime has used
		b.add(w.metric+".writer", name, w.perGiB(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
	}
	return nil
}

// readByHand reads pipes of several sizes by pieces of several sizes.
func (b *bench) readByHand(w writing) error {
	for _, how := range bounds {
		rate, used, err := b.throughPipe(w, how.pipe, how.piece)
		if err != nil {
			return fmt.Errorf("%s: %w", how.what, err)
		}
		b.add(how.metric+".rate", byHandName, rate)
		b.add(how.metric+".cpu", byHandName, w.perGiB(used))
	}
	return nil
}

// throughPipe tells also what both ends have used.
func (b *bench) throughPipe(w writing, pipe, piece int) (rate float64, used time.Duration, err error) {
	from, to, err := os.Pipe()
	if err != nil {
		return 0, 0, err
	}
	defer from.Close()
	defer to.Close()
	if _, err := unix.FcntlInt(to.Fd(), unix.F_SETPIPE_SZ, pipe); err != nil {
		return 0, 0, os.NewSyscallError("F_SETPIPE_SZ", err)
	}
	client := ownCPU()
	writer := exec.CommandContext(b.ctx, b.tools.Busybox, w.command()...)
	writer.Stdout = to
	if err := writer.Start(); err != nil {
		return 0, 0, err
	}
	to.Close()
	taken := newMeter(w.all())
	_, err = io.CopyBuffer(struct{ io.Writer }{taken}, struct{ io.Reader }{from}, make([]byte, piece))
	if err := errors.Join(err, writer.Wait()); err != nil {
		return 0, 0, fmt.Errorf("run %s: %w", writer, err)
	}
	if taken.got != taken.want {
		return 0, 0, fmt.Errorf("%s has written %d bytes of %d", writer, taken.got, taken.want)
	}
	return taken.rate(), ownCPU() - client + writer.ProcessState.UserTime() + writer.ProcessState.SystemTime(), nil
}

// ownCPU is what this program, the client, has used.
func ownCPU() time.Duration {
	var usage unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
