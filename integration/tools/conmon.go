package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// conmonProgram is where conmon is in a tree of Debian's packages.
const conmonProgram = "usr/bin/conmon"

// EnsureConmon fetches conmon as Debian's package, unless it is there, and
// returns its folder. Nothing is installed.
func EnsureConmon(ctx context.Context, progress io.Writer) (string, error) {
	return ensureFetched(ctx, progress, "conmon", "conmon of Debian "+debian, debian+conmonProgram+borrowedScript, func(ctx context.Context, dir string) error {
		apt, root := filepath.Join(dir, "apt"), filepath.Join(dir, "root")
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		r, err := openRelease(ctx, apt, debian)
		if err != nil {
			return err
		}
		if err := r.unpack(ctx, root, "conmon"); err != nil {
			return err
		}
		if err := os.RemoveAll(apt); err != nil {
			return err
		}
		script := strings.NewReplacer("NAME", "conmon", "FILE", conmonProgram).Replace(borrowedScript)
		path := filepath.Join(dir, "conmon")
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput(); err != nil {
			return fmt.Errorf("run conmon: %w: %s", err, out)
		}
		return nil
	})
}
