package tools

// containerds other than the newest: those that Debian packages, which need not
// be built, and the last of each line that is still in use, each built with the
// versions of a module of its own.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Containerd is a release of containerd.
type Containerd struct {
	Name   string // of it among others, and of its folder
	Series string // "1.7": what its configuration is like
	Debian string // release of Debian that packages it; "" if it is built here
}

// Newest is the containerd of Ensure.
var Newest = Containerd{Name: "2.4", Series: "2.4"}

// Containerds are all of them, oldest first.
var Containerds = []Containerd{
	{Name: "1.6-debian", Series: "1.6", Debian: "bookworm"},
	{Name: "1.7-debian", Series: "1.7", Debian: "trixie"},
	{Name: "1.7", Series: "1.7"},
	{Name: "2.0", Series: "2.0"},
	{Name: "2.2", Series: "2.2"},
	Newest,
}

// EnvContainerd names the environment variable with the Name of the release that
// tests of a client use, which is the newest when it is not set.
const EnvContainerd = "CLEAT_TEST_CONTAINERD"

// Chosen is that release.
func Chosen() (Containerd, error) {
	name := os.Getenv(EnvContainerd)
	if name == "" {
		return Newest, nil
	}
	for _, c := range Containerds {
		if c.Name == name {
			return c, nil
		}
	}
	return Containerd{}, fmt.Errorf("%s=%s: there is no such release", EnvContainerd, name)
}

// Cannot begins what a test says that ends early because the release of containerd
// has just shown, in its own words or by what it did, that it does not do what
// the test is about.
const Cannot = "this containerd cannot: "

// Sometimes begins one about what it does not do each time.
const Sometimes = Cannot + "always "

// Packaged are those that need not be built.
func Packaged() []Containerd {
	return slices.DeleteFunc(slices.Clone(Containerds), func(c Containerd) bool { return c.Debian == "" })
}

// commands are the import path of a release's programs, without the last part.
func (c Containerd) commands() string {
	if strings.HasPrefix(c.Series, "1.") {
		return "github.com/containerd/containerd/cmd/"
	}
	return containerdCmd
}

// Older says whether c is of an older series than "2.3", say.
func (c Containerd) Older(series string) bool { return c.Series < series } // all are of one digit

// With is t with the containerd, ctr and stock shim of another release. They
// are at the same place in each folder that EnvBuilt can name.
func (t Tools) With(c Containerd) Tools {
	t.Release = c
	if c == Newest {
		return t
	}
	dir := filepath.Join(t.Dir, c.folder())
	t.Containerd, t.Ctr, t.StockShim = filepath.Join(dir, "containerd"), filepath.Join(dir, "ctr"), filepath.Join(dir, "containerd-shim-runc-v2")
	return t
}

func (c Containerd) folder() string { return "containerd-" + c.Name }

// EnsureContainerd makes the programs of a release that With names unless they
// are there.
func EnsureContainerd(ctx context.Context, progress io.Writer, c Containerd) error {
	if c == Newest {
		return nil
	}
	if c.Debian != "" {
		return ensurePackaged(ctx, progress, c)
	}
	root, err := repository()
	if err != nil {
		return err
	}
	build := filepath.Join(root, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return fmt.Errorf("make the build folder: %w", err)
	}
	unlock, err := lock(filepath.Join(build, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	b := builder{root: root, tools: at(build), progress: progress, began: time.Now()}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		p := program{pkg: c.commands() + name, out: filepath.Join(c.folder(), name), env: []string{"CGO_ENABLED=0"}}
		if err := b.program(ctx, filepath.Join("integration", "tools", "containerd", c.Name), p); err != nil {
			return err
		}
	}
	return nil
}

// ensurePackaged makes scripts that run the programs beside Docker in a release
// of Debian, by the loader and the libraries of that release. The stock shim
// runs itself again by /proc/self/exe, which would be the loader: it has a link
// instead, and works where this machine's C library is not older.
func ensurePackaged(ctx context.Context, progress io.Writer, c Containerd) error {
	tree, err := EnsureDocker(ctx, progress, c.Debian)
	if err != nil {
		return err
	}
	build := filepath.Dir(filepath.Dir(tree))
	dir := filepath.Join(build, c.folder())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	from, err := filepath.Rel(build, tree)
	if err != nil {
		return err
	}
	for _, name := range []string{"containerd", "ctr"} {
		script := strings.NewReplacer("NAME", name, "TREE", from).Replace(packagedScript)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	shim := filepath.Join(dir, "containerd-shim-runc-v2")
	if err := os.Remove(shim); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(filepath.Join("..", from, "usr", "bin", filepath.Base(shim)), shim)
}

// packagedScript finds the tree beside its own folder, wherever that is.
const packagedScript = `#!/bin/sh
root=${0%/*}/../TREE
for lib in lib usr/lib; do
	loader=$root/$lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
	if [ -e "$loader" ]; then
		exec "$loader" --library-path "$root/$lib/x86_64-linux-gnu" --argv0 NAME "$root/usr/bin/NAME" "$@"
	fi
done
echo "NAME: there is no loader below $root" >&2
exit 127
`
