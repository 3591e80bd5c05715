// Package tools builds and finds the programs that the integration tests and
// the demo run: the shim under test, containerd, ctr, the stock shim, runc,
// the CNI plugins and a static busybox.
//
// Everything goes to one folder, build/ at the top of the repository, and is
// made once: a program is built again only when its sources' versions, its
// flags or the Go release have changed. Several processes may ask at once; one
// builds and the others wait.
package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// EnvBuilt names the environment variable that points to a folder with all
// programs already built. When it is set nothing is built and no Go toolchain,
// compiler or package source is needed (the cgroup v2 machine runs this way).
const EnvBuilt = "CLEAT_BUILT"

// Cast is the name in such a folder of the program that chaos brings along, if it
// is there.
const Cast = "chaos-cast"

// ShimName is the file name of the shim under test, which containerd derives
// from the runtime name io.containerd.cleat.v2.
const ShimName = "containerd-shim-cleat-v2"

// Tools says where the programs are. All paths are absolute.
type Tools struct {
	Dir        string // folder of all programs but the CNI plugins
	Containerd string
	Ctr        string
	Shim       string // the shim under test
	Cleat      string // the operator's tool
	StockShim  string
	Stress     string // containerd-stress
	Runc       string
	Busybox    string // statically linked
	CNI        string // folder of the CNI plugins bridge, host-local, loopback

	Release Containerd // of the programs of containerd
}

// at names the programs of a folder that holds, or will hold, them all.
func at(dir string) Tools {
	return Tools{
		Dir:        dir,
		Containerd: filepath.Join(dir, "containerd"),
		Ctr:        filepath.Join(dir, "ctr"),
		Shim:       filepath.Join(dir, ShimName),
		Cleat:      filepath.Join(dir, "cleat"),
		StockShim:  filepath.Join(dir, "containerd-shim-runc-v2"),
		Stress:     filepath.Join(dir, "containerd-stress"),
		Runc:       filepath.Join(dir, "runc"),
		Busybox:    filepath.Join(dir, "busybox"),
		CNI:        filepath.Join(dir, "cni"),
		Release:    Newest,
	}
}

// Ensure makes every program that is missing or out of date and says where
// they are. It writes one line per step that takes time to progress, and ends
// early when ctx does.
//
// An error names exactly what is missing on this machine and how to get it.
func Ensure(ctx context.Context, progress io.Writer) (Tools, error) {
	if dir := os.Getenv(EnvBuilt); dir != "" {
		return check(at(dir))
	}
	root, err := repository()
	if err != nil {
		return Tools{}, err
	}
	t := at(filepath.Join(root, "build"))
	if err := os.MkdirAll(t.CNI, 0o755); err != nil {
		return Tools{}, fmt.Errorf("make the build folder: %w", err)
	}
	unlock, err := lock(filepath.Join(t.Dir, ".lock"))
	if err != nil {
		return Tools{}, err
	}
	defer unlock()

	b := builder{root: root, tools: t, progress: progress, began: time.Now()}
	for _, step := range []func(context.Context) error{b.packages, b.busybox, b.thirdParty, b.shim} {
		if err := step(ctx); err != nil {
			return Tools{}, err
		}
	}
	return check(t)
}

// Files lists every program. All are below Dir, at the same place in each
// folder that EnvBuilt can name.
func (t Tools) Files() []string {
	return []string{
		t.Containerd, t.Ctr, t.Shim, t.Cleat, t.StockShim, t.Stress, t.Runc, t.Busybox,
		filepath.Join(t.CNI, "bridge"), filepath.Join(t.CNI, "host-local"), filepath.Join(t.CNI, "loopback"),
	}
}

// check reports every program of t that is not there.
func check(t Tools) (Tools, error) {
	var missing []error
	for _, file := range t.Files() {
		if _, err := os.Stat(file); err != nil {
			missing = append(missing, err)
		}
	}
	if len(missing) > 0 {
		return Tools{}, fmt.Errorf("programs are missing: %w", errors.Join(missing...))
	}
	return t, nil
}

// repository finds the top of the checkout: the folder above the working
// directory whose go.mod is the product's.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		mod, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/cleatrun/cleat\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside a checkout of github.com/cleatrun/cleat, and %s is not set", dir, EnvBuilt)
		}
	}
}

// lock takes the build folder for this process and returns how to give it
// back. It waits as long as another process builds.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the build folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
