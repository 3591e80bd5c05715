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
)

// measureHand is the limit of a task's life: the calls to the OCI runtime without
// which there is no container, one after the other.
func measureHand(b *bench) error {
	runtimes := map[string]string{"runc": b.tools.Runc}
	names := []string{"runc"}
	if b.crun != "" {
		runtimes["crun"] = b.crun
		names = append(names, "crun")
	}
	return adopting(func() error {
		for range b.rounds(b.n.rounds) {
			for _, name := range names {
				if err := b.byHand("life", name, runtimes[name], b.name("hand")); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// byHand is one life; metric is where it is added.
func (b *bench) byHand(metric, name, path, id string) (err error) {
	bundle, err := b.bundle(id, "true")
	if err != nil {
		return err
	}
	call := func(ctx context.Context, args ...string) error {
		cmd := exec.CommandContext(ctx, path, append([]string{"--root", b.daemon.RuntimeState()}, args...)...)
		cmd.Dir, cmd.Env = bundle, b.daemon.Environ(b.tools.Dir)
		// Its own pipe would be the container's, too; what goes wrong is in the log.
		log, err := os.Create(filepath.Join(bundle, "said"))
		if err != nil {
			return err
		}
		defer log.Close()
		cmd.Stderr = log
		if err := cmd.Run(); err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%s %s: %w: %s", name, args[0], err, said)
		}
		return nil
	}
	pidFile := filepath.Join(bundle, "pid")
	began := time.Now()
	if err := call(b.ctx, "create", "--bundle", bundle, "--pid-file", pidFile, id); err != nil {
		return err
	}
	created := time.Now()
	defer func() {
		if err != nil {
			call(context.WithoutCancel(b.ctx), "delete", "--force", id)
		}
		err = errors.Join(err, os.RemoveAll(bundle))
	}()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	again := time.Now()
	if err := call(b.ctx, "start", id); err != nil {
		return err
	}
	started := time.Now()
	if _, err := awaitEnd(b.ctx, pid); err != nil {
		return err
	}
	exited := time.Now()
	if err := call(b.ctx, "delete", id); err != nil {
		return err
	}
	deleted := time.Now()
	b.addTime(metric+".create", name, created.Sub(began))
	b.addTime(metric+".start", name, started.Sub(again))
	b.addTime(metric+".exit", name, exited.Sub(started))
	b.addTime(metric+".delete", name, deleted.Sub(exited))
	b.addTime(metric+".total", name, deleted.Sub(began))
	return nil
}
