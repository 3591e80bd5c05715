package tools

// Programs that only suites of others need, and that machines seldom have or
// have too old: criu above all, of which releases before 4 do not know the
// kernels of today.

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// borrowedPrograms are where they are in a tree of Debian's packages.
// CRIU calls those of iptables.
var borrowedPrograms = map[string]string{
	"criu":              "usr/sbin/criu",
	"iptables-restore":  "usr/sbin/xtables-nft-multi",
	"ip6tables-restore": "usr/sbin/xtables-nft-multi",
	"ip":                "usr/bin/ip",
	"lsof":              "usr/bin/lsof",
	"mkfs.xfs":          "usr/sbin/mkfs.xfs",
	"ps":                "usr/bin/ps",
}

var borrowedPackages = []string{"criu", "iptables", "iproute2", "lsof", "procps", "xfsprogs"}

// EnsureBorrowed fetches those programs as Debian's packages unless they are
// there and returns a folder for PATH. Nothing is installed. They work from
// wherever the folder is, or is mounted.
func EnsureBorrowed(ctx context.Context, progress io.Writer) (string, error) {
	text := fmt.Sprint(debian, borrowedPackages, borrowedPrograms, borrowedScript)
	return ensureFetched(ctx, progress, "borrowed", strings.Join(borrowedPackages, ", ")+" of Debian "+debian, text, borrow)
}

// ensureFetched fills the folder name of the build folder by fetch, unless that
// was done already with the same text, and returns it. what is what is fetched.
func ensureFetched(ctx context.Context, progress io.Writer, name, what, text string, fetch func(context.Context, string) error) (string, error) {
	if dir := os.Getenv(EnvBuilt); dir != "" {
		dir = filepath.Join(dir, name)
		if _, err := os.Stat(dir); err != nil {
			return "", fmt.Errorf("find %s: %w", what, err)
		}
		return dir, nil
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

	dir := filepath.Join(build, name)
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	if upToDate(dir, key) {
		return dir, nil
	}
	// Made beside the old one, so that what is there is always whole.
	fresh := dir + ".new"
	for _, old := range []string{fresh, dir} {
		if err := os.RemoveAll(old); err != nil {
			return "", err
		}
	}
	defer os.RemoveAll(fresh)
	b := builder{root: root, progress: progress, began: time.Now()}
	if err := b.install(ctx, guestNeeds); err != nil {
		return "", err
	}
	if err := b.step("fetch "+what, func() error { return fetch(ctx, fresh) }); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(dir+".key", []byte(key), 0o644)
}

// borrow fills dir: a tree of packages, and a script for each program.
func borrow(ctx context.Context, dir string) error {
	apt, root := filepath.Join(dir, "apt"), filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	r, err := openRelease(ctx, apt, debian)
	if err != nil {
		return err
	}
	if err := r.unpack(ctx, root, borrowedPackages...); err != nil {
		return err
	}
	if err := os.RemoveAll(apt); err != nil {
		return err
	}
	for name, file := range borrowedPrograms {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			return fmt.Errorf("the packages lack a program: %w", err)
		}
		script := strings.NewReplacer("NAME", name, "FILE", file).Replace(borrowedScript)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// borrowedScript runs a program with the loader and the libraries that it was
// made for, which the machine's may be older than. Some programs do what their
// name says.
const borrowedScript = `#!/bin/sh
root=${0%/*}/root
lib=$root/usr/lib/x86_64-linux-gnu
export XTABLES_LIBDIR=$lib/xtables
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lib" --argv0 NAME "$root/FILE" "$@"
`
