package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/conformance/cell"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	cell.EnterIfAsked()
	os.Exit(m.Run())
}

// A suite that is a shell script: TestHang never ends, and TestBreak ends all.
const script = `#!/bin/sh
m=$(printf '\026')
begin() { echo "$m=== RUN   $1"; }
pass() { echo "$m--- PASS: $1 (0.00s)"; }
case "$*" in *TestGood*) begin TestGood; pass TestGood;; esac
case "$*" in *TestHang*) begin TestHang; exec sleep 1000;; esac
case "$*" in *TestInnocent*) begin TestInnocent;; esac
case "$*" in *TestBreak*) begin TestBreak; exit 2;; esac
case "$*" in *TestInnocent*) pass TestInnocent;; esac
`

// Without it, one test that hangs or panics on a candidate hides the results
// of all others.
func TestATestThatHangsOrDiesCostsItsOwnResultOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a cell needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	programs, err := tools.Ensure(ctx, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, testProgram), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &runner{
		folders: []string{dir, programs.Dir}, busybox: filepath.Base(programs.Busybox),
		logs: dir, quiet: 3 * time.Second, limit: time.Minute, progress: io.Discard,
	}
	got, err := r.round(ctx, candidates[0], 1, []string{"TestGood", "TestHang", "TestInnocent", "TestBreak"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]outcome{"TestGood": passed, "TestHang": hung, "TestInnocent": passed, "TestBreak": crashed} {
		if o := got.Results[name].Outcome; o != want {
			t.Errorf("%s: %q, not %q", name, o, want)
		}
	}
	if len(got.Logs) != 4 { // up to TestHang, up to TestBreak, and each suspect alone
		t.Errorf("%d runs of the suite, not 4: %v", len(got.Logs), got.Logs)
	}
}

func TestARoundThatTakesTooLongIsAnErrorThatSaysSo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a cell needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	programs, err := tools.Ensure(ctx, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, testProgram), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := &runner{
		folders: []string{dir, programs.Dir}, busybox: filepath.Base(programs.Busybox),
		logs: dir, quiet: time.Minute, limit: 2 * time.Second, progress: io.Discard,
	}
	if _, err := r.round(ctx, candidates[0], 1, []string{"TestHang"}); err == nil || ctx.Err() != nil {
		t.Errorf("the answer is %v", err)
	} else {
		t.Log(err)
	}
}
