package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit bounds one demo whose programs are built already.
const limit = 3 * time.Minute

// built is the demo's own binary.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestDemoShowsTheWholeLifeAndLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, built(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, part := range []string{"RUNNING", "PAUSED", "STOPPED", "exit code 7", "bye", "   nothing\n"} {
		if !bytes.Contains(out, []byte(part)) {
			t.Errorf("%q is not shown", part)
		}
	}
}

// Ctrl-C in the middle, and even the demo's sudden death, must leave nothing.
func TestInterruptedDemoLeavesNothing(t *testing.T) {
	binary := built(t)
	for name, signal := range map[string]unix.Signal{"Ctrl-C": unix.SIGINT, "SIGKILL": unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary)
			cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
			output, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var dir string
			lines := bufio.NewScanner(output)
			for lines.Scan() {
				if _, place, ok := strings.Cut(lines.Text(), " in /tmp/"); ok {
					dir = filepath.Join("/tmp", strings.TrimSuffix(place, "."))
				}
				if strings.Contains(lines.Text(), "Other processes run in it") {
					// As a terminal does, to all of the foreground.
					if err := unix.Kill(-cmd.Process.Pid, signal); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the demo ended with success")
			}
			if dir == "" {
				t.Fatal("the demo did not tell its folder")
			}
			for ctx.Err() == nil {
				if _, err := os.Stat(dir); os.IsNotExist(err) && running(t, dir) == "" {
					return
				}
			}
			t.Errorf("%s, or %s, is left over", dir, running(t, dir))
		})
	}
}

// running names a process with the folder on its command line.
func running(t *testing.T, dir string) string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if text, err := os.ReadFile(entry); err == nil && bytes.Contains(text, []byte(dir)) {
			return string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
	return ""
}
