package integration

// What the tests have in common: time limits, and words for what a user does.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/poll"
)

// The limits are for a machine that is emulated in software, twenty times
// slower than a real one. Nothing ever waits for one to pass.
const (
	testTime   = 3 * time.Minute  // of one test, or what stands for one
	settleTime = 30 * time.Second // until what goes on after an answer has ended
)

// bounded is the context of a test, with an end.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// eventually is until within settleTime, for what must come to hold.
func eventually(t *testing.T, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	if err := poll.Until(ctx, holds); err != nil {
		t.Fatal(err)
	}
}

// sharedDaemon is the containerd that tests share.
func sharedDaemon(t *testing.T) *daemon.Daemon {
	t.Helper()
	d, err := startShared()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ownDaemon is a containerd for one test.
func ownDaemon(t *testing.T, config daemon.Config) *daemon.Daemon {
	t.Helper()
	d, err := daemon.Start(bounded(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd and the shims wrote:\n%s", told(d))
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// told is the end of what a containerd and its shims have written, without what
// every containerd writes.
func told(d *daemon.Daemon) string {
	var text strings.Builder
	for line := range strings.Lines(d.Log()) {
		if !strings.Contains(line, "load plugin") && !strings.Contains(line, "loading plugin") {
			text.WriteString(line)
		}
	}
	return tail(text.String(), 40)
}

// comesBack runs containerd again and returns its events, from the first that
// shims have kept for it.
func comesBack(t *testing.T, d *daemon.Daemon) *daemon.Events {
	t.Helper()
	hold, err := d.HoldEvents()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hold.Close() })
	if err := d.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	events, err := d.Subscribe(bounded(t))
	if err != nil {
		t.Fatal(err)
	}
	hold.Release()
	return events
}

// nothingLeft fails the test when anything is left on d, which no other test
// uses at the same time.
func nothingLeft(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	if left := d.Settled(bounded(t), settleTime); len(left) > 0 {
		t.Errorf("left over:\n%s", lines(left))
	}
}

// nothingLeftOf fails the test when anything is left that bears the name of a
// container.
func nothingLeftOf(t *testing.T, d *daemon.Daemon, id string) {
	t.Helper()
	ctx := bounded(t)
	eventually(t, func() error {
		var left []string
		for _, line := range d.Leftovers(ctx) {
			if strings.Contains(line, id) {
				left = append(left, line)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("left over of %s:\n%s", id, lines(left))
		}
		return nil
	})
}

// ctr runs ctr to its end and returns what it wrote to its standard output. It
// must succeed.
func ctr(t *testing.T, d *daemon.Daemon, args ...string) string {
	t.Helper()
	cmd := d.Ctr(bounded(t), args...)
	stdout, stderr, code := finish(t, cmd)
	if code != 0 {
		t.Fatalf("ctr %s ended with %d:\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// run is `ctr run` with the runtime under test and the test image.
func run(flags []string, id string, args ...string) []string {
	all := append([]string{"run", "--runtime", runtimeName}, flags...)
	return append(append(all, image.Name, id), args...)
}

func lines(list []string) string { return "  " + strings.Join(list, "\n  ") }

// tail is the last lines of a text.
func tail(text string, n int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
