// Package host finds out whether a host is fit for the shim: what the kernel can
// do, which OCI runtimes and which containerd are there, what limits are set. It
// looks at the things themselves, changes nothing, and waits for nobody longer
// than a few seconds.
//
// This file is what a finding is; kernel.go, cgroups.go, runtimes.go,
// containerd.go and limits.go have the examinations.
package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
)

// Verdict on something that was looked at.
type Verdict string

const (
	OK   Verdict = "ok"
	Note Verdict = "note" // good to know
	// Warn is what can get in the way, Bad what does.
	Warn Verdict = "warning"
	Bad  Verdict = "FAILURE"
)

// Finding is about one thing.
type Finding struct {
	Area    string
	Name    string
	Verdict Verdict
	// Found is what there is, Advice what to do about it.
	Found  string
	Advice string `json:",omitempty"`
}

// findings are those of one area.
type findings struct {
	area string
	all  []Finding
}

func (f *findings) add(name string, v Verdict, found, advice string) {
	if v == OK || v == Note {
		advice = ""
	}
	f.all = append(f.all, Finding{f.area, name, v, found, advice})
}

// can tells whether something works. bad is the verdict if it does not.
func (f *findings) can(name string, err error, bad Verdict, advice string) {
	if err == nil {
		f.add(name, OK, "works", "")
		return
	}
	f.add(name, bad, err.Error(), advice)
}

// commandLimit bounds a program that is asked for its version or the like.
const commandLimit = 5 * time.Second

// run runs a program that is to answer at once, and returns what it writes.
func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	return answer(ctx, exec.CommandContext(ctx, path, args...))
}

// runFile is run for a program that is open.
func runFile(ctx context.Context, f *os.File, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	return answer(ctx, shims.Command(ctx, f, args...))
}

func answer(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", fmt.Errorf("it does not end within %s", commandLimit)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, firstLine(errs.String()))
	}
	return out.String(), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}

// setting reads a file of /proc/sys or the like, empty if there is none.
func setting(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
