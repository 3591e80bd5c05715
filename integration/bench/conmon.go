package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cleatrun/cleat/integration/tools"
)

// conmonName is the name of its results.
const conmonName = "conmon"

// measureConmon runs idle containers under conmon, then ends them.
func measureConmon(b *bench) error {
	if b.form == "tiny" {
		return missing("it is not fetched for the tiny form")
	}
	dir, err := tools.EnsureConmon(b.ctx, b.progress)
	if err != nil {
		return missing("conmon cannot be had: " + err.Error())
	}
	return adopting(func() error {
		for range b.rounds(max(b.n.rounds/4, 1)) {
			if err := b.underConmon(filepath.Join(dir, "conmon")); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) underConmon(program string) (err error) {
	id := b.name("conmon")
	bundle, err := b.bundle(id, forever...)
	if err != nil {
		return err
	}
	state := b.daemon.RuntimeState()
	monitorFile, pidFile := filepath.Join(bundle, "conmon.pid"), filepath.Join(bundle, "pid")
	bounded, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(bounded, program, "--api-version", "1", "--cid", id, "--cuuid", id, "--name", id, "--runtime", b.tools.Runc,
		"--runtime-arg", "--root", "--runtime-arg", state, "--bundle", bundle, "--persist-dir", bundle, "--full-attach",
		"--container-pidfile", pidFile, "--conmon-pidfile", monitorFile, "--log-path", "k8s-file:"+filepath.Join(bundle, "output.log"))
	cmd.Dir, cmd.Env = bundle, b.daemon.Environ(b.tools.Dir)
	out, err := os.Create(filepath.Join(bundle, "said"))
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("conmon: %w: %s", err, said)
	}
	call := func(args ...string) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, b.tools.Runc, append([]string{"--root", state}, args...)...)
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("runc %s: %w: %s", args[0], err, said)
		}
		return nil
	}
	pid, err := readPID(bounded, monitorFile)
	if err != nil {
		return err
	}
	if _, err := readPID(bounded, pidFile); err != nil {
		return err
	}
	gone := false
	defer func() {
		if !gone {
			err = errors.Join(err, call("delete", "--force", id))
			now, end := context.WithCancel(b.ctx)
			end()
			awaitEnd(now, pid)
		}
		err = errors.Join(err, os.RemoveAll(bundle))
	}()
	if err := call("start", id); err != nil {
		return err
	}
	f, err := footprintOf(pid)
	if err != nil {
		return err
	}
	if err := call("kill", id, "KILL"); err != nil {
		return err
	}
	used, err := awaitEnd(bounded, pid)
	if err != nil {
		return err
	}
	gone = true
	b.add("conmon.private", conmonName, f.private)
	b.add("conmon.rss", conmonName, f.rss)
	b.add("conmon.pss", conmonName, f.pss)
	b.add("conmon.threads", conmonName, f.threads)
	b.addTime("conmon.cpu", conmonName, used.own)
	return call("delete", id)
}

// readPID waits until a file has a number.
func readPID(ctx context.Context, path string) (int, error) {
	for {
		text, err := os.ReadFile(path)
		if err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				return pid, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for a number in %s: %w", path, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}
