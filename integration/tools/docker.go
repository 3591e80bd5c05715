package tools

// Docker, as Debian packages it, with the containerd, the runc and the stock
// shim that it packages beside it. They are programs of that release's own C
// library, so what is made is a tree to be the root of a mount namespace.

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// dockerPackages are unpacked for each release, with all that they depend on.
var dockerPackages = map[string][]string{
	"bookworm": {"docker.io", "procps"},               // Docker 20.10, containerd 1.6
	"trixie":   {"docker.io", "docker-cli", "procps"}, // Docker 26.1, containerd 1.7
}

// EnsureDocker fetches Docker of a Debian release unless it is there and returns
// the tree of its packages. Nothing is installed.
func EnsureDocker(ctx context.Context, progress io.Writer, release string) (tree string, err error) {
	packages := dockerPackages[release]
	if packages == nil {
		return "", fmt.Errorf("no packages of Docker are known for Debian %s", release)
	}
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("packages of Debian are fetched for x86-64; this machine is %s", runtime.GOARCH)
	}
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

	dir := filepath.Join(build, "docker-"+release)
	tree = filepath.Join(dir, "root")
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(release, packages))))
	if upToDate(dir, key) {
		return tree, nil
	}
	// Made beside the old one, so that what is there is always whole.
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(dir)); err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	b := builder{root: root, progress: progress, began: time.Now()}
	if err := b.install(ctx, guestNeeds); err != nil {
		return "", err
	}
	err = b.step("fetch Docker of Debian "+release, func() error {
		apt := filepath.Join(fresh, "apt")
		r, err := openRelease(ctx, apt, release)
		if err != nil {
			return err
		}
		unpacked := filepath.Join(fresh, "root")
		return errors.Join(os.MkdirAll(unpacked, 0o755), r.unpack(ctx, unpacked, packages...), os.RemoveAll(apt))
	})
	if err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", err
	}
	return tree, os.WriteFile(dir+".key", []byte(key), 0o644)
}
