package main

// The programs that a run needs, made once.

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// prepare builds what chaos brings along, in the folder of here.
func prepare(ctx context.Context, here *place.Place, progress io.Writer) (cast, error) {
	t, err := tools.Ensure(ctx, progress)
	if err != nil {
		return cast{}, err
	}
	c := cast{tools: t, guest: here.Path("guest"), logger: here.Path("logger"), runtimes: here.Path("runtimes"), shim: here.Path("shim"), image: here.Path("image.tar")}
	for _, dir := range []string{c.runtimes, c.shim} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return cast{}, err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", c.guest, "github.com/cleatrun/cleat/integration/chaos/cast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return cast{}, fmt.Errorf("build the cast: %w: %s", err, out)
	}
	for _, name := range []string{c.logger, filepath.Join(c.runtimes, "runc")} {
		if err := os.Link(c.guest, name); err != nil {
			return cast{}, err
		}
	}
	// Copies: all rounds have the same shims, even if they are built again.
	for _, program := range []string{t.Shim, t.StockShim} {
		text, err := os.ReadFile(program)
		if err == nil {
			err = os.WriteFile(filepath.Join(c.shim, filepath.Base(program)), text, 0o755)
		}
		if err != nil {
			return cast{}, err
		}
	}
	img, err := image.New(t.Busybox)
	if err != nil {
		return cast{}, err
	}
	return c, image.WriteFile(img, image.Name, c.image)
}
