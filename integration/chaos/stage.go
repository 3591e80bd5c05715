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

// prepare builds what chaos brings along, in the folder of here, and finds the
// OCI runtime.
func prepare(ctx context.Context, here *place.Place, oci string, progress io.Writer) (cast, error) {
	t, err := tools.Ensure(ctx, progress)
	if err != nil {
		return cast{}, err
	}
	switch oci {
	case "runc":
		oci = t.Runc
	case "crun":
		if oci, err = crun(ctx, progress); err != nil {
			return cast{}, err
		}
	}
	c := cast{oci: oci, tools: t, guest: here.Path("guest"), logger: here.Path("logger"), runtimes: here.Path("runtimes"), shim: here.Path("shim"), image: here.Path("image.tar")}
	for _, dir := range []string{c.runtimes, c.shim} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return cast{}, err
		}
	}
	if err := c.build(ctx); err != nil {
		return cast{}, err
	}
	for _, name := range []string{c.logger, filepath.Join(c.runtimes, "runc")} {
		if err := os.Link(c.guest, name); err != nil {
			return cast{}, err
		}
	}
	// Copies: all rounds have the same shims, even if they are built again.
	for _, program := range []string{t.Shim, t.StockShim} {
		if err := copyProgram(program, filepath.Join(c.shim, filepath.Base(program))); err != nil {
			return cast{}, err
		}
	}
	img, err := image.New(t.Busybox)
	if err != nil {
		return cast{}, err
	}
	return c, image.WriteFile(img, image.Name, c.image)
}

// build makes the cast's program, or takes it from where it is built already.
func (c cast) build(ctx context.Context) error {
	if dir := os.Getenv(tools.EnvBuilt); dir != "" {
		return copyProgram(filepath.Join(dir, tools.Cast), c.guest)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", c.guest, "github.com/cleatrun/cleat/integration/chaos/cast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the cast: %w: %s", err, out)
	}
	return nil
}

// crun is the system's in a machine that was made for tests, else Debian's.
func crun(ctx context.Context, progress io.Writer) (string, error) {
	if os.Getenv(tools.EnvBuilt) != "" {
		return exec.LookPath("crun")
	}
	dir, err := tools.EnsureRuntimes(ctx, progress)
	return filepath.Join(dir, "crun"), err
}

func copyProgram(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}
