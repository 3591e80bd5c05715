package docker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// counting writes a line again and again, so that a gap in its logs is seen.
var counting = []string{"sh", "-c", `i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo $i; usleep 10000; done; exit 6`}

// away looks at containers after daemons have ended and come back. While they
// are dead one of the containers ends.
func (b *bench) away(kill func(), back ...func(context.Context) error) {
	b.t.Helper()
	b.start("stays", nil, forever...)
	b.start("counts", nil, counting...)
	b.start("ends", nil, "sh", "-c", "until [ -e /tmp/end ]; do sleep 0.01; done; echo ended; exit 5")
	pid := b.tells("stays", "{{.State.Pid}}")
	ends := filepath.Join("/proc", b.tells("ends", "{{.State.Pid}}"))
	b.logged("counts", "3")
	dockerd := b.dockerd
	kill()
	if err := os.WriteFile(filepath.Join(ends, "root/tmp/end"), nil, 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.eventually(func() error {
		if _, err := os.Stat(ends); err == nil {
			return fmt.Errorf("%s still runs", ends)
		}
		return nil
	})
	for _, start := range back {
		if err := start(b.ctx); err != nil {
			b.t.Fatal(err)
		}
	}
	b.becomes("ends", "{{.State.Status}} {{.State.ExitCode}}", "exited 5")
	if b.dockerd == dockerd {
		// One that has come back does not read what ended containers have left.
		b.logged("ends", "ended")
	}
	if got := b.tells("stays", "{{.State.Status}} {{.State.Pid}}"); got != "running "+pid {
		b.t.Errorf("the container that stays is %q, want running %s", got, pid)
	}
	b.expect("exec afterwards", b.ask("exec", "stays", "sh", "-c", "echo here; exit 3"), answer{"here\n", "", 3})
	// Not by an exec: the end of the container may be its own.
	end := filepath.Join("/proc", b.tells("counts", "{{.State.Pid}}"), "root/tmp/end")
	if err := os.WriteFile(end, nil, 0o644); err != nil {
		b.t.Fatal(err)
	}
	b.becomes("counts", "{{.State.Status}} {{.State.ExitCode}}", "exited 6")
	for i, line := range strings.Split(b.do("logs", "counts"), "\n") {
		if line != strconv.Itoa(i+1) {
			b.t.Errorf("line %d of the logs of the container that counts is %q", i+1, line)
			break
		}
	}
	b.do("stop", "stays")
	if got := b.tells("stays", "{{.State.ExitCode}}"); got != "9" {
		b.t.Errorf("the container that stays ended with %s", got)
	}
}

// Containers outlive dockerd: what one writes and how one ends meanwhile is
// known when it is back.
func TestContainersOutliveDockerd(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.away(b.dockerd.kill, b.startDockerd)
	})
}

// So they do containerd, which dockerd finds again by itself.
func TestContainersOutliveContainerd(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.away(b.containerd.kill, b.startContainerd)
	})
}

// And both.
func TestContainersOutliveBoth(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.away(func() { b.dockerd.kill(); b.containerd.kill() }, b.startContainerd, b.startDockerd)
	})
}
