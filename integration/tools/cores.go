package tools

// A kernel that schedules cores, for the one test that needs it.

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

//go:embed cores.config
var coresConfig string

// sourcePackage stands for the source of the kernel that the machines run.
const sourcePackage = "linux-source"

var coresNeeds = slices.Concat(needs, guestNeeds, []need{
	{"flex (the kernel's configuration is read by a program made with it)", "flex", command("flex")},
	{"bison (the same)", "bison", command("bison")},
	{"bc (the kernel's timers are computed with it)", "bc", command("bc")},
	{"libelf (the kernel's objtool reads objects with it)", "libelf-dev", func() bool { _, err := os.Stat("/usr/include/gelf.h"); return err == nil }},
	{"xz (the kernel's source is packed with it)", "xz-utils", command("xz")},
})

// EnsureCoreKernel builds a kernel with core scheduling unless it is there, and
// says where its image is. None of Debian's kernels has it (docs/protocol-traps.md
// lists them), so it is made of Debian's source: as small as it can be, which
// takes two processors five minutes. Otherwise it is like EnsureGuest.
func EnsureCoreKernel(ctx context.Context, progress io.Writer) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	build := filepath.Join(root, "build")
	unlock, err := lock(filepath.Join(build, ".cores.lock")) // others are not kept waiting
	if err != nil {
		return "", err
	}
	defer unlock()
	kernel := filepath.Join(build, "vmlinuz-cores")
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(debian+" "+coresConfig)))
	if upToDate(kernel, key) {
		return kernel, nil
	}
	b := builder{root: root, progress: progress, began: time.Now()}
	if err := b.install(ctx, coresNeeds); err != nil {
		return "", err
	}
	dir := filepath.Join(build, "cores.new")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	var source string
	err = b.step("fetch the source of Debian "+debian+"'s kernel", func() error {
		r, err := openRelease(ctx, filepath.Join(dir, "apt"), debian)
		if err == nil {
			err = r.unpackTarget(ctx, dir, sourcePackage, sourcePackage+"-")
		}
		if err != nil {
			return err
		}
		packed, err := filepath.Glob(filepath.Join(dir, "usr/src", sourcePackage+"-*.tar.xz"))
		if err != nil || len(packed) != 1 {
			return fmt.Errorf("%s has not one archive but %d (%v)", sourcePackage, len(packed), err)
		}
		source = strings.TrimSuffix(packed[0], ".tar.xz")
		return run(ctx, dir, nil, "tar", "-x", "-C", filepath.Dir(source), "-f", packed[0])
	})
	if err != nil {
		return "", err
	}
	err = b.step("build a kernel with core scheduling", func() error { return compileKernel(ctx, source, coresConfig) })
	if err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(source, "arch/x86/boot/bzImage"), kernel); err != nil {
		return "", err
	}
	return kernel, os.WriteFile(kernel+".key", []byte(key), 0o644)
}

// compileKernel makes an image from source. Each line of the configuration must
// be in what Linux makes of it.
func compileKernel(ctx context.Context, source, config string) error {
	call := func(args ...string) error {
		// An outer make must not share its job server or its flags with this.
		return run(ctx, source, []string{"MAKEFLAGS=", "MAKELEVEL=", "MFLAGS="}, "make", append([]string{"-s"}, args...)...)
	}
	if err := call("tinyconfig"); err != nil {
		return err
	}
	file := filepath.Join(source, ".config")
	tiny, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(tiny, config...), 0o644); err != nil { // the last word counts
		return err
	}
	if err := call("olddefconfig"); err != nil {
		return err
	}
	made, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(config) {
		if strings.HasSuffix(line, "=y\n") && !strings.Contains(string(made), "\n"+line) {
			return fmt.Errorf("the kernel's configuration has no %s", strings.TrimSpace(line))
		}
	}
	return call(fmt.Sprintf("-j%d", runtime.NumCPU()), "bzImage")
}
