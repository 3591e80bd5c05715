package main

// Who is compared.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cleatrun/cleat/integration/tools"
)

// The names under which results are kept.
const (
	cleat = "cleat"
	stock = "stock"       // as upstream builds it: static, stripped, without grpc
	plain = "stock-plain" // as `go build` makes it
	other = "cleat-other" // another build of the shim
)

// contender is a shim with an OCI runtime.
type contender struct {
	name    string
	runtime string // for containerd
	shim    string // path
	oci     string // path of the OCI runtime
}

// on is the same shim with another OCI runtime.
func (c contender) on(name, path string) contender {
	c.name, c.oci = c.name+"+"+name, path
	return c
}

// findContenders makes what is not built for the tests anyway. What cannot be had
// is told and left out.
func (b *bench) findContenders() error {
	installed, err := filepath.Abs(filepath.Join(b.out, "installed"))
	if err != nil {
		return err
	}
	for _, program := range []*string{&b.tools.Shim, &b.tools.StockShim, &b.tools.Runc, &b.beside} {
		if *program == "" {
			continue
		}
		path, err := install(*program, installed)
		if err != nil {
			return err
		}
		*program = path
	}
	b.contenders = []contender{
		{cleat, b.tools.Shim, b.tools.Shim, b.tools.Runc},
		{stock, b.tools.StockShim, b.tools.StockShim, b.tools.Runc},
	}
	if b.beside != "" {
		b.contenders = append(b.contenders, contender{other, b.beside, b.beside, b.tools.Runc})
	}
	if b.form == "tiny" {
		return nil // nothing is built or fetched for it
	}
	path, err := buildPlain(b.ctx, b.tools)
	if err == nil {
		path, err = install(path, filepath.Join(installed, plain))
	}
	if err != nil {
		b.results.leaveOut(b.progress, plain, err.Error())
	} else {
		b.contenders = append(b.contenders, contender{plain, path, path, b.tools.Runc})
	}
	if dir, err := tools.EnsureRuntimes(b.ctx, b.progress); err != nil {
		b.results.leaveOut(b.progress, "crun", err.Error())
	} else {
		b.crun = filepath.Join(dir, "crun")
	}
	return nil
}

// install copies a program, as an installation does. Go's linker writes a file by
// small pages of memory, which are mapped one by one when it is run; those of a
// copy are larger, and a run of a shim costs a fifth less.
func install(program, dir string) (string, error) {
	path := filepath.Join(dir, filepath.Base(program))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	from, err := os.Open(program)
	if err != nil {
		return "", err
	}
	defer from.Close()
	os.Remove(path) // which may be running
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	// By large writes; the kernel would copy from one file to the other as they are.
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 1<<20))
	return path, errors.Join(err, to.Close())
}

// buildPlain builds containerd's shim with no flags at all. Its name must be the
// stock one's, for that is what it calls itself.
func buildPlain(ctx context.Context, t tools.Tools) (string, error) {
	path := filepath.Join(t.Dir, "bench", "plain", filepath.Base(t.StockShim))
	if newer(path, t.StockShim) {
		return path, nil
	}
	return path, goBuild(ctx, path, "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2")
}

// newer tells that a file is there and was made after another.
func newer(path, than string) bool {
	a, err := os.Stat(path)
	if err != nil {
		return false
	}
	b, err := os.Stat(than)
	return err == nil && a.ModTime().After(b.ModTime())
}

func goBuild(ctx context.Context, out string, args ...string) error {
	if os.Getenv(tools.EnvBuilt) != "" {
		if _, err := os.Stat(out); err == nil {
			return nil
		}
		return fmt.Errorf("there is no Go here to build %s with", out)
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", out}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", filepath.Base(out), err, text)
	}
	return nil
}
