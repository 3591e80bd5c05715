package tools

// How each program is made. The third-party ones are `tool` lines of the
// integration module's go.mod, so their versions are pinned there and nowhere
// else. The shim is built by the Makefile, so that its flags are stated once.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// program is one third-party Go program of the build folder.
type program struct {
	pkg  string
	out  string   // path below the build folder
	env  []string // on top of the environment
	tags string
	// instead has what is compiled in the place of files of the package.
	instead map[string]string
}

const (
	containerdCmd = "github.com/containerd/containerd/v2/cmd/"
	cniPlugins    = "github.com/containernetworking/plugins/plugins/"
)

// thirdParty is ordered so that what takes longest to compile comes first and
// the rest finds its packages in Go's cache.
//
// runc needs cgo (its nsenter is C); built without tags it needs no C library
// but libc's own. Everything else is built static.
var thirdParty = []program{
	{pkg: containerdCmd + "containerd", out: "containerd", env: []string{"CGO_ENABLED=0"}},
	{pkg: containerdCmd + "ctr", out: "ctr", env: []string{"CGO_ENABLED=0"}},
	{pkg: containerdCmd + "containerd-shim-runc-v2", out: "containerd-shim-runc-v2", env: []string{"CGO_ENABLED=0"}, tags: "no_grpc"},
	{pkg: containerdCmd + "containerd-stress", out: "containerd-stress", env: []string{"CGO_ENABLED=0"}, instead: map[string]string{"rlimit_unix.go": stressLimit}},
	{pkg: "github.com/opencontainers/runc", out: "runc", env: []string{"CGO_ENABLED=1"}},
	{pkg: cniPlugins + "main/bridge", out: "cni/bridge", env: []string{"CGO_ENABLED=0"}},
	{pkg: cniPlugins + "main/loopback", out: "cni/loopback", env: []string{"CGO_ENABLED=0"}},
	{pkg: cniPlugins + "ipam/host-local", out: "cni/host-local", env: []string{"CGO_ENABLED=0"}},
}

// stressLimit lets containerd-stress be content with as many open files as it may
// have: it wants 100,000, which not every root can give, and uses a few hundred.
//
//go:embed stresslimit.go.txt
var stressLimit string

// builder carries what the steps of one Ensure share.
type builder struct {
	root     string
	tools    Tools
	progress io.Writer
	began    time.Time
}

// step tells what begins now, does it, and tells how long it took.
func (b *builder) step(what string, do func() error) error {
	fmt.Fprintf(b.progress, "setup: %s ...", what)
	began := time.Now()
	if err := do(); err != nil {
		fmt.Fprintf(b.progress, " failed after %.1f s\n", time.Since(began).Seconds())
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(b.progress, " %.1f s (%.0f s in all)\n", time.Since(began).Seconds(), time.Since(b.began).Seconds())
	return nil
}

// thirdParty builds the programs whose key has changed.
func (b *builder) thirdParty(ctx context.Context) error {
	for _, p := range thirdParty {
		if err := b.program(ctx, "integration", p); err != nil {
			return err
		}
	}
	return nil
}

// program builds a program with the versions of a module, which is a folder of
// the repository, if its key has changed.
func (b *builder) program(ctx context.Context, module string, p program) error {
	module = filepath.Join(b.root, module)
	var versions bytes.Buffer
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return err
		}
		versions.Write(text)
	}
	out := filepath.Join(b.tools.Dir, p.out)
	described := fmt.Sprintf("%s %s %v %s %s", p.pkg, p.tags, p.env, runtime.Version(), versions.Bytes())
	if p.instead != nil {
		described += fmt.Sprint(p.instead)
	}
	key := fmt.Sprintf("%x", sha256.Sum256([]byte(described)))
	if upToDate(out, key) {
		return nil
	}
	err := b.step("build "+p.out, func() error {
		args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-tags", p.tags, "-o", out}
		dir, pkg := module, p.pkg
		if p.instead != nil {
			var remove func()
			var err error
			if dir, remove, err = changed(ctx, module, p); err != nil {
				return err
			}
			defer remove()
			pkg = "."
		}
		return run(ctx, dir, p.env, "go", append(args, pkg)...)
	})
	if err != nil {
		return err
	}
	return os.WriteFile(out+".key", []byte(key), 0o644)
}

// alone is the environment of a make that must not share an outer one's job server
// or flags.
var alone = []string{"MAKEFLAGS=", "MAKELEVEL=", "MFLAGS="}

// changed copies the program's module with other files in the place of some of the
// package's. Go lets nobody replace a file where modules are kept.
func changed(ctx context.Context, module string, p program) (dir string, remove func(), err error) {
	list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Module.Dir}}\n{{.Dir}}", p.pkg)
	list.Dir = module
	out, err := list.Output()
	if err != nil {
		return "", nil, fmt.Errorf("where is %s: %w", p.pkg, err)
	}
	root, pkg, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	copied, err := os.MkdirTemp("", "cleat-module-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(copied) }
	dir = filepath.Join(copied, strings.TrimPrefix(pkg, root))
	err = os.CopyFS(copied, os.DirFS(root))
	for name, text := range p.instead {
		err = errors.Join(err, os.Remove(filepath.Join(dir, name)), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	if err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

// shim lets the Makefile build the shim under test; Go decides whether there
// is anything to do.
func (b *builder) shim(ctx context.Context) error {
	build := func() error {
		return run(ctx, b.root, alone, "make", "--no-print-directory", "build")
	}
	if _, err := os.Stat(b.tools.Shim); err == nil {
		return build() // a second or so: not worth a line
	}
	return b.step("build "+ShimName, build)
}

// busybox puts a statically linked busybox into the build folder. It is all
// that the test image holds.
func (b *builder) busybox(context.Context) error {
	if _, err := os.Stat(b.tools.Busybox); err == nil {
		return nil
	}
	source, err := findBusybox()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	return os.WriteFile(b.tools.Busybox, text, 0o755)
}

// findBusybox looks for a busybox that runs in an empty root filesystem.
func findBusybox() (string, error) {
	for _, name := range []string{"busybox", "busybox-static", "busybox.static"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if static(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no statically linked busybox in PATH (%s)", os.Getenv("PATH"))
}

// static says whether an ELF file needs no dynamic loader.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// upToDate says whether out is there and was built for key.
func upToDate(out, key string) bool {
	if _, err := os.Stat(out); err != nil {
		return false
	}
	old, err := os.ReadFile(out + ".key")
	return err == nil && string(old) == key
}

// run runs a program in dir and returns what it said when it fails.
func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
