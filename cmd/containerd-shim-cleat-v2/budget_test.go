package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// maxSize of the stripped binary. Every shim of a host shares its pages, but a
// library that comes in unnoticed shows here first.
const maxSize = 5_460_000

// What the daemon imports is paid for in every shim, as long as it lives
// (docs/performance.md). A package that is to come in belongs into imports.txt, after
// a look at what it costs.
func TestImportsAreThoseThatAreKnown(t *testing.T) {
	text, err := os.ReadFile("imports.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(text))
	if !slices.IsSorted(known) {
		t.Error("imports.txt is not sorted")
	}
	list := exec.Command("go", "list", "-tags", "no_grpc", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var imported []string
	for path := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(path, "github.com/cleatrun/cleat/") {
			continue
		}
		imported = append(imported, path)
		if !slices.Contains(known, path) {
			t.Errorf("%s is new in the daemon", path)
		}
	}
	for _, path := range known {
		if !slices.Contains(imported, path) {
			t.Errorf("%s is not in the daemon any more: imports.txt has it", path)
		}
	}
}

// Of the standard library these bring more than the rest.
func TestHeavyPackagesStayOut(t *testing.T) {
	out, err := exec.Command("go", "list", "-tags", "no_grpc", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	imported := strings.Fields(string(out))
	if len(imported) < 100 {
		t.Fatalf("go list names %d packages", len(imported))
	}
	for _, heavy := range []string{"net/http", "text/template", "html/template", "encoding/gob", "go/build", "expvar", "runtime/pprof", "crypto/tls", "crypto/x509", "regexp"} {
		if slices.Contains(imported, heavy) {
			t.Errorf("%s is in the daemon", heavy)
		}
	}
}

func TestBinaryIsSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shim")
	build := exec.Command("go", "build", "-trimpath", "-tags", "no_grpc", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxSize {
		t.Errorf("it has %d bytes, more than %d", info.Size(), maxSize)
	}
}
