package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/image"
)

// measureStress runs containerd's own benchmark.
func measureStress(b *bench) error {
	// It wants that many descriptors, and panics without.
	const descriptors = 100_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if err := exec.CommandContext(b.ctx, b.tools.Stress, "version").Run(); err != nil {
		return missing(fmt.Sprintf("containerd-stress wants a limit of %d open files, here are no more than %d (ulimit -Hn)", descriptors, limit.Max))
	}
	for range min(max(b.n.rounds/10, 1), 3) {
		for _, c := range b.contenders[:2] {
			cmd := exec.CommandContext(b.ctx, b.tools.Stress, "--address", b.daemon.Address(), "--concurrent", "4", "--duration", b.n.stress.String(),
				"--image", image.Name, "--runtime", c.runtime, "--json")
			cmd.Env = b.daemon.Environ(b.tools.Dir)
			cmd.WaitDelay = 5 * time.Second
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("containerd-stress: %w: %s", err, stderr.String())
			}
			var r struct {
				ContainersPerSecond float64
				Failures            int
			}
			if err := json.Unmarshal(out[strings.IndexByte(string(out), '{'):], &r); err != nil || r.Failures > 0 {
				return fmt.Errorf("containerd-stress: %s, %v", out, err)
			}
			b.add("stress.rate", c.name, r.ContainersPerSecond)
		}
	}
	return nil
}
