package tools

// OCI runtimes of others, as distributions ship them: what the shim has to get
// along with besides the newest runc.

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// fetchedRuntime is one of Debian's.
type fetchedRuntime struct {
	name    string // of the program that EnsureRuntimes makes
	release string
	pkg     string
	file    string // in the package's tree
	own     string // libraries that go to the folder "own", a pattern
	script  string // what runs it
}

// crun is run by the loader and the libraries that it was made for, which the
// machine's may be older than. It runs no container where some controllers are
// of cgroup v1 and some of v2; then the latter are hidden from it. runc runs itself again by /proc/self/exe, which
// would be the loader then; that of bookworm runs by the loader of any system
// that is not older, with the one library of its own that it needs.
var fetchedRuntimes = []fetchedRuntime{
	{"crun", debian, "crun", "usr/bin/crun", "", `#!/bin/sh
root=${0%/*}/of-crun
unified=/sys/fs/cgroup/unified
if [ -z "$CLEAT_HIDDEN" ] && [ -n "$(cat $unified/cgroup.controllers 2>/dev/null)" ]; then
	export CLEAT_HIDDEN=1
	exec unshare --mount sh -c 'umount '$unified'; exec "$0" "$@"' "$0" "$@"
fi
unset CLEAT_HIDDEN
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" --argv0 crun "$root/usr/bin/crun" "$@"
`},
	{"runc-1.1", "bookworm", "runc", "usr/sbin/runc", "lib/x86_64-linux-gnu/libseccomp.so.*", `#!/bin/sh
root=${0%/*}/of-runc-1.1
LD_LIBRARY_PATH="$root/own" exec "$root/usr/sbin/runc" "$@"
`},
}

// EnsureRuntimes fetches crun and runc-1.1 as Debian's packages, unless they are
// there, and returns their folder. Nothing is installed.
func EnsureRuntimes(ctx context.Context, progress io.Writer) (string, error) {
	return ensureFetched(ctx, progress, "runtimes", "crun and runc 1.1 of Debian", fmt.Sprint(fetchedRuntimes), fetchRuntimes)
}

func fetchRuntimes(ctx context.Context, dir string) error {
	for _, f := range fetchedRuntimes {
		apt, root := filepath.Join(dir, "apt"), filepath.Join(dir, "of-"+f.name)
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		r, err := openRelease(ctx, apt, f.release)
		if err != nil {
			return err
		}
		if err := r.unpack(ctx, root, f.pkg); err != nil {
			return err
		}
		if err := os.RemoveAll(apt); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(root, f.file)); err != nil {
			return fmt.Errorf("the package lacks its program: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.script), 0o755); err != nil {
			return err
		}
		if err := f.setApart(root); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, filepath.Join(dir, f.name), "--version").CombinedOutput(); err != nil {
			return fmt.Errorf("run %s of Debian %s: %w: %s", f.pkg, f.release, err, out)
		}
	}
	return nil
}

// setApart moves the runtime's own libraries away from those of the system that
// came with them.
func (f fetchedRuntime) setApart(root string) error {
	if f.own == "" {
		return nil
	}
	own := filepath.Join(root, "own")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	for _, below := range []string{"", "usr"} {
		libraries, err := filepath.Glob(filepath.Join(root, below, f.own))
		if err != nil {
			return err
		}
		for _, library := range libraries {
			if err := os.Rename(library, filepath.Join(own, filepath.Base(library))); err != nil {
				return err
			}
		}
	}
	return nil
}
