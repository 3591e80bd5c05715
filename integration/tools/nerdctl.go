package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// nerdctl has a module of its own: it needs other versions of what the tests use.
var nerdctl = program{
	pkg: "github.com/containerd/nerdctl/v2/cmd/nerdctl", out: "nerdctl", env: []string{"CGO_ENABLED=0"},
}

// EnsureNerdctl builds nerdctl unless it is there and returns its path.
func EnsureNerdctl(ctx context.Context, progress io.Writer) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	build := filepath.Join(root, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return "", fmt.Errorf("make the build folder: %w", err)
	}
	unlock, err := lock(filepath.Join(build, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	b := builder{root: root, tools: at(build), progress: progress, began: time.Now()}
	return filepath.Join(build, nerdctl.out), b.program(ctx, "integration/tools/nerdctl", nerdctl)
}
