package main

// What the kernel keeps for a shim: stacks, page tables, descriptors, sockets. It
// is charged to the cgroup that the shim is in. What it has done for containers is,
// too, so it is measured what a cgroup of shims loses when they alone are killed.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// memoryGroup is a cgroup that counts memory.
type memoryGroup struct {
	dir     string
	unified bool
}

func (b *bench) newMemoryGroup() (memoryGroup, error) {
	const root, v1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
	name := filepath.Join(b.daemon.Namespace, b.name("kernel"))
	if _, err := os.Stat(filepath.Join(v1, "memory.kmem.usage_in_bytes")); err == nil {
		g := memoryGroup{dir: filepath.Join(v1, name)}
		return g, os.MkdirAll(g.dir, 0o755)
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
		return memoryGroup{}, missing("there is no memory controller that counts kernel memory")
	}
	g := memoryGroup{dir: filepath.Join(root, name), unified: true}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return g, err
	}
	for _, parent := range []string{root, filepath.Dir(g.dir)} {
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return g, fmt.Errorf("count memory below %s: %w", parent, err)
		}
	}
	return g, nil
}

// kernel is the kernel memory of the group, in bytes.
func (g memoryGroup) kernel() (float64, error) {
	if !g.unified {
		text, err := os.ReadFile(filepath.Join(g.dir, "memory.kmem.usage_in_bytes"))
		if err != nil {
			return 0, err
		}
		return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "kernel "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("memory.stat does not tell kernel memory")
}

// enter is a command that runs another in the group.
func (g memoryGroup) enter() []string {
	return []string{"/bin/sh", "-c", `echo 0 > "$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}
}

// steady waits until the kernel has freed what it frees later (RCU), with a bound.
func (g memoryGroup) steady() (last float64, err error) {
	last = -1
	for range 40 {
		now, err := g.kernel()
		if err != nil || now == last {
			return now, err
		}
		last = now
		time.Sleep(100 * time.Millisecond)
	}
	return last, nil
}

func measureKernelMemory(b *bench) error {
	sink, err := b.takeEvents()
	if err != nil {
		return err
	}
	defer sink.Stop()
	shims := min(b.n.rounds, 20)
	return adopting(func() error {
		for _, c := range b.contenders {
			if err := b.kernelMemory(c, sink, shims); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) kernelMemory(c contender, sink *daemon.Sink, shims int) (err error) {
	group, err := b.newMemoryGroup()
	if err != nil {
		return err
	}
	var all []*lone
	defer func() {
		for _, l := range all {
			_, undone := l.remove()
			err = errors.Join(err, undone)
		}
	}()
	for range shims {
		l, _, err := b.newLone(c, sink, forever, group.enter()...)
		if err != nil {
			return err
		}
		all = append(all, l)
		if err := l.run(); err != nil {
			return err
		}
	}
	if err := b.settle(); err != nil {
		return err
	}
	before, err := group.steady()
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := unix.Kill(l.pid, unix.SIGKILL); err != nil {
			return err
		}
		if _, err := l.gone(b.ctx); err != nil {
			return err
		}
	}
	after, err := group.steady()
	if err != nil {
		return err
	}
	b.add("kernel.memory", c.name, (before-after)/1024/float64(shims))
	return nil
}
