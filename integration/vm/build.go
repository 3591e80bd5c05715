package vm

// What of this repository runs inside a machine, and how it is built.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cleatrun/cleat/integration/tools"
)

// build makes the programs that a machine gets, in the build folder.
func build(ctx context.Context, t tools.Tools) (programs, error) {
	p := programs{
		tools: t,
		init:  filepath.Join(t.Dir, "guest-init"),
		tests: filepath.Join(t.Dir, "integration.test"),
		pods:  filepath.Join(t.Dir, "cri.test"),
		walks: filepath.Join(t.Dir, "walk.test"),
		chaos: filepath.Join(t.Dir, "chaos.test"),
		cast:  filepath.Join(t.Dir, tools.Cast),
	}
	var err error
	if p.older, err = tools.EnsureDocker(ctx, os.Stdout, older.Debian); err != nil {
		return programs{}, err
	}
	for _, name := range packages {
		p.packages = append(p.packages, filepath.Join(t.Dir, filepath.Base(name)+".test"))
	}
	for _, v := range tools.Variants {
		path, err := t.Variant(ctx, v)
		if err != nil {
			return programs{}, err
		}
		p.variants = append(p.variants, path)
	}
	reference, err := t.Reference(ctx)
	if err != nil {
		return programs{}, err
	}
	p.variants = append(p.variants, reference)
	// The tests' packages are the folder above and one beside this.
	builds := [][]string{
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", p.init, "./guest"},
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.tests, ".."},
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.pods, "../cri"},
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.walks, "../compatibility/walk"},
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.chaos, "../chaos"},
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", p.cast, "../chaos/cast"},
	}
	for i, name := range packages {
		builds = append(builds, []string{"test", "-C", "../..", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.packages[i], "./" + name})
	}
	for _, args := range builds {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the machine's C library is another
		cmd.WaitDelay = 5 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return programs{}, fmt.Errorf("%s: %w\n%s", cmd, err, bytes.TrimSpace(out))
		}
	}
	return p, nil
}
