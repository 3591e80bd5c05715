package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/cleatrun/cleat/integration/image"
)

// measureStress runs containerd's own benchmark, built to be content with the limit
// of open files that there is.
func measureStress(b *bench) error {
	registry, err := image.ServeRegistry()
	if err != nil {
		return err
	}
	defer registry.Close()
	name, err := stressImage(b, registry)
	if err != nil {
		return err
	}
	for range min(max(b.n.rounds/10, 1), 3) {
		for _, c := range b.contenders[:2] {
			cmd := exec.CommandContext(b.ctx, b.tools.Stress, "--address", b.daemon.Address(), "--concurrent", "4", "--duration", b.n.stress.String(),
				"--image", name, "--runtime", c.runtime, "--json")
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

// stressImage is where containerd-stress pulls its image from, which has the user
// that its containers run as.
func stressImage(b *bench, registry *image.Registry) (name string, err error) {
	img, err := image.New(b.tools.Busybox)
	if err != nil {
		return "", err
	}
	img, err = image.WithFiles(img, image.File{Name: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/:/bin/sh\ngames:x:5:60:games:/:/bin/sh\n")})
	if err != nil {
		return "", err
	}
	return registry.Add(img, "stress:latest")
}
