// Package ocitest is an OCI runtime for tests: a shell script that takes the
// command lines of runc and launches real processes, without namespaces and in
// milliseconds. What a container and its execs run is a script of the test's,
// and so is what each command does besides: fail, wait, be slow, launch
// something that ends at once.
//
// As with a real runtime, what it launches are children of the shim, that is of
// the test process, once the command has ended. The test process must be a child
// subreaper.
package ocitest

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/oci"
	"golang.org/x/sys/unix"
)

//go:embed runtime.sh
var script string

// Runtime is an OCI runtime and its state.
type Runtime struct {
	t    testing.TB
	dir  string
	path string
}

// New makes a runtime that keeps its state until the test's end.
func New(t testing.TB, namespace string) *Runtime {
	t.Helper()
	// Not t.TempDir: its paths are longer than that of a socket may be.
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &Runtime{t: t, dir: dir, path: filepath.Join(dir, "runtime")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.write(r.path, strings.ReplaceAll(script, "@SELF@", self), 0o700)
	for _, d := range []string{"bundles", filepath.Join("root", namespace)} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// Path of the program.
func (r *Runtime) Path() string { return r.path }

// Root of its state, without the namespace.
func (r *Runtime) Root() string { return filepath.Join(r.dir, "root") }

// Dir is a folder for whatever the test needs; its path is short.
func (r *Runtime) Dir() string { return r.dir }

// Options make the shim use this runtime.
func (r *Runtime) Options() oci.Options {
	return oci.Options{BinaryName: r.path, Root: r.Root()}
}

// Bundle makes a bundle. The container's init process will run the script.
func (r *Runtime) Bundle(id, init string) oci.Bundle {
	r.t.Helper()
	b := oci.Bundle(filepath.Join(r.dir, "bundles", id))
	if err := os.MkdirAll(string(b), 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.write(b.Path("config.json"), `{"ociVersion": "1.2.0", "linux": {"namespaces": [{"type": "pid"}]}}`, 0o600)
	r.write(b.Path("init.sh"), init, 0o600)
	if err := unix.Mkfifo(b.Path("start"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	// Held open, so that a start is not lost on an init process that does not
	// wait for it yet.
	start, err := os.OpenFile(b.Path("start"), os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { start.Close() })
	return b
}

// Exec says what an exec of that id runs.
func (r *Runtime) Exec(b oci.Bundle, id, script string) {
	r.t.Helper()
	r.write(b.Path("exec-"+id+".sh"), script, 0o600)
}

// On says what a command (create, start, exec, delete, …) does before anything
// else. In the script $id is the container, $state its state's file, $bundle its
// bundle, and the function fail ends the command with an error message, as runc
// does. An exec is found under "exec" or "exec-" and its id.
func (r *Runtime) On(b oci.Bundle, command, script string) {
	r.t.Helper()
	r.write(b.Path("on-"+command), script, 0o600)
}

// After says what a command does when it has done its work, before it ends: then
// there is $pid, the process that create, restore and exec have made.
func (r *Runtime) After(b oci.Bundle, command, script string) {
	r.t.Helper()
	r.write(b.Path("after-"+command), script, 0o600)
}

// Wait is a piece of script that waits for a file in the bundle; see Touch.
func Wait(name string) string {
	return fmt.Sprintf("until [ -e \"$bundle/%s\" ]; do sleep 0.005; done\n", name)
}

// Touch makes a file in the bundle.
func (r *Runtime) Touch(b oci.Bundle, name string) {
	r.t.Helper()
	r.write(b.Path(name), "", 0o600)
}

// Calls are the commands that were run for a container, in order: their names,
// for an exec with its id.
func (r *Runtime) Calls(b oci.Bundle) []string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.Root(), "calls-"+filepath.Base(string(b))))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// Has tells whether the runtime has a container of that id.
func (r *Runtime) Has(id string) bool {
	found, err := filepath.Glob(filepath.Join(r.Root(), "*", id))
	if err != nil {
		r.t.Fatal(err)
	}
	return len(found) > 0
}

// Left lists what a bundle holds that was not put there by the test.
func (r *Runtime) Left(b oci.Bundle) (left []string) {
	r.t.Helper()
	entries, err := os.ReadDir(string(b))
	if err != nil {
		r.t.Fatal(err)
	}
	ours := []string{"config.json", "init.sh", "start"}
	for _, e := range entries {
		name := e.Name()
		if !slices.Contains(ours, name) && !strings.HasPrefix(name, "on-") && !strings.HasPrefix(name, "after-") && !strings.HasSuffix(name, ".sh") {
			left = append(left, name)
		}
	}
	return left
}

func (r *Runtime) write(path, text string, mode os.FileMode) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}
