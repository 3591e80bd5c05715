package main

// The limit of output: the same program writes, the same client reads, and nothing
// is between.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// byHandName is the name of results of what is done without any shim or runtime.
const byHandName = "by hand"

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

// writeByHand lets the container's program write into a FIFO that is read as that of
// a container is.
func (b *bench) writeByHand(w writing) (err error) {
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
	client := ownCPU()
	cmd := b.writer(w, stdout)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", cmd, err)
	}
	select {
	case <-taken.full: // what was left in the pipe
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	b.add(w.metric+".rate", byHandName, taken.rate())
	b.add(w.metric+".client", byHandName, w.perGiB(ownCPU()-client))
	b.add(w.metric+".writer", byHandName, w.perGiB(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
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
	cmd := b.writer(w, to)
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	to.Close()
	taken := newMeter(w.all())
	_, err = io.CopyBuffer(struct{ io.Writer }{taken}, struct{ io.Reader }{from}, make([]byte, piece))
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, 0, err
	}
	return taken.rate(), ownCPU() - client + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// writer is what runs in the container.
func (b *bench) writer(w writing, stdout *os.File) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, b.tools.Busybox, w.command()...)
	cmd.Stdout = stdout
	return cmd
}

// ownCPU is what this program, the client, has used.
func ownCPU() time.Duration {
	var usage unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
