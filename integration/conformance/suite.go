package main

// containerd's own client tests: where they are, how they are compiled, and
// which of them are about what a shim does.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/integration/tools"
)

// Files of the suite's folder.
const (
	testProgram = "client.test"
	runcFP      = "runc-fp" // a runc that fails or waits on order; tests want it in PATH
	description = "suite.json"
)

// suite is the compiled suite.
type suite struct {
	Version string     // of containerd
	Key     string     // changes when it has to be compiled again
	Tests   []testFunc // all of it, in the order in which Go runs them

	dir string // folder of the programs
}

type testFunc struct{ Name, File string }

// elsewhere are the files of tests that use no shim, or that are no tests.
// Those of a file that is not here are run, so what containerd adds is not
// missed.
var elsewhere = []string{
	"benchmark_test.go", "container_fuzz_test.go",
	"content_test.go", "convert_test.go", "export_test.go", "image_test.go", "import_test.go",
	"lease_test.go", "migration_test.go", "snapshot_test.go", "transfer_test.go",
}

// aboutShims lists the tests to run.
func (s *suite) aboutShims() []string {
	var names []string
	for _, t := range s.Tests {
		// client_test.go has both kinds.
		if !slices.Contains(elsewhere, t.File) && !strings.HasPrefix(t.Name, "TestImagePull") {
			names = append(names, t.Name)
		}
	}
	return names
}

// prepare finds the suite in Go's module cache and compiles it as it is, with
// the versions that containerd's own go.mod names, into a folder next to the
// other programs. It does nothing when that has been done before.
func prepare(ctx context.Context, t tools.Tools, progress io.Writer) (*suite, error) {
	s := &suite{dir: filepath.Join(t.Dir, "conformance")}
	text, err := os.ReadFile(filepath.Join(s.dir, description))
	if err == nil {
		err = json.Unmarshal(text, s)
	}
	if os.Getenv(tools.EnvBuilt) != "" {
		if err != nil {
			return nil, fmt.Errorf("the suite is not among the programs of %s: %w", tools.EnvBuilt, err)
		}
		return s, nil
	}

	module, err := findModule(ctx, filepath.Join(t.Dir, "..", "integration"))
	if err != nil {
		return nil, err
	}
	key := strings.Join([]string{module.Version, module.Dir, runtime.Version()}, " ")
	if s.Key == key && there(filepath.Join(s.dir, testProgram)) && there(filepath.Join(s.dir, runcFP)) {
		return s, nil
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "compile the client tests of containerd %s ...", module.Version)
	began := time.Now()
	if err := compile(ctx, module.Dir, s.dir); err != nil {
		fmt.Fprintln(progress)
		return nil, err
	}
	fmt.Fprintf(progress, " %.0f s\n", time.Since(began).Seconds())
	if s.Tests, err = listTests(filepath.Join(module.Dir, "integration", "client")); err != nil {
		return nil, err
	}
	s.Version, s.Key = module.Version, key
	text, err = json.MarshalIndent(s, "", "\t")
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(filepath.Join(s.dir, description), text, 0o644)
}

func there(file string) bool { _, err := os.Stat(file); return err == nil }

// module is what the go command tells of a module.
type module struct{ Dir, Version string }

func findModule(ctx context.Context, from string) (module, error) {
	var m module
	out, err := runGo(ctx, from, "list", "-m", "-json", "github.com/containerd/containerd/v2")
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(out, &m); err != nil {
		return m, fmt.Errorf("find containerd's sources: %w", err)
	}
	if m.Dir == "" {
		return m, errors.New("find containerd's sources: they are not in Go's module cache")
	}
	return m, nil
}

// compile makes the programs in out. It runs in the module cache, which is
// read-only: containerd is the main module then, so that its tests get the
// packages that they were written against.
func compile(ctx context.Context, module, out string) error {
	if _, err := runGo(ctx, module, "test", "-c", "-trimpath", "-o", filepath.Join(out, testProgram), "./integration/client"); err != nil {
		return err
	}
	_, err := runGo(ctx, module, "build", "-trimpath", "-o", filepath.Join(out, runcFP), "./integration/failpoint/cmd/runc-fp")
	return err
}

func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
	cmd.WaitDelay = 5 * time.Second
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// listTests lists the test functions of a package's folder.
func listTests(dir string) ([]testFunc, error) {
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil, fmt.Errorf("list the suite's tests: %w", err)
	}
	var list []testFunc
	for _, file := range append(pkg.TestGoFiles, pkg.XTestGoFiles...) {
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file), nil, 0)
		if err != nil {
			return nil, fmt.Errorf("list the suite's tests: %w", err)
		}
		for _, decl := range parsed.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") && f.Name.Name != "TestMain" {
				list = append(list, testFunc{f.Name.Name, file})
			}
		}
	}
	return list, nil
}
