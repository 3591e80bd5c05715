package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// floor is the name of results of the Go process that does nothing.
const floor = "go"

func measureFloor(b *bench) error {
	path := filepath.Join(b.tools.Dir, "bench", "nothing")
	if err := goBuild(b.ctx, path, "-trimpath", "-ldflags", "-s -w", "github.com/cleatrun/cleat/integration/bench/nothing"); err != nil {
		return missing(err.Error())
	}
	path, err := install(path, filepath.Join(b.out, "installed")) // as the shims are
	if err != nil {
		return err
	}
	size, err := os.Stat(path)
	if err != nil {
		return err
	}
	b.add("floor.size", floor, float64(size.Size())/1e6)
	for range b.rounds(b.n.rounds) {
		cmd := exec.CommandContext(b.ctx, path, "end")
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("run %s: %w", path, err)
		}
		b.addTime("floor.cpu", floor, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	return b.idleNothing(path, slices.Max(b.n.idle))
}

// idleNothing runs some at once, so that they share the pages of the program as
// shims do.
func (b *bench) idleNothing(path string, n int) error {
	var pids []int
	for range n {
		cmd := exec.CommandContext(b.ctx, path)
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
			return fmt.Errorf("run %s: %w", path, err)
		}
		pids = append(pids, cmd.Process.Pid)
	}
	for _, pid := range pids {
		f, err := footprintOf(pid)
		if err != nil {
			return err
		}
		b.add("floor.private", floor, f.private)
		b.add("floor.rss", floor, f.rss)
		b.add("floor.pss", floor, f.pss)
		b.add("floor.threads", floor, f.threads)
	}
	return nil
}
