package tools

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Earlier is where EnsureEarlier puts its program.
func (t Tools) Earlier() string { return filepath.Join(t.Dir, ShimName+"-earlier") }

// EnsureEarlier builds the shim as one of the version of the state before (package
// upgrade of the shim). There need not be any earlier commit to build.
func EnsureEarlier(ctx context.Context, progress io.Writer) error {
	root, err := repository()
	if err != nil {
		return err
	}
	t := at(filepath.Join(root, "build"))
	unlock, err := lock(filepath.Join(t.Dir, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	const version = "github.com/cleatrun/cleat/shim/upgrade.stateVersion=1"
	build := func() error {
		return run(ctx, root, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-tags", "no_grpc",
			"-ldflags", "-s -w -X main.release=earlier -X "+version, "-o", t.Earlier(), "./cmd/"+ShimName)
	}
	if _, err := os.Stat(t.Earlier()); !errors.Is(err, os.ErrNotExist) {
		return build() // a second or so: not worth a line
	}
	b := builder{root: root, tools: t, progress: progress, began: time.Now()}
	return b.step("build an earlier "+ShimName, build)
}
