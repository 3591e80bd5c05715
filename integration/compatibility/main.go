// Command compatibility runs the shim on every containerd, OCI runtime and client
// that this repository can build or fetch, and makes the tables of
// docs/compatibility.md of what that gives. `make compatibility` runs it.
//
// It ends with status 1 if anything that was tried does not work, unless that
// fails with the shim that belongs to the same release of containerd, too.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
	"github.com/cleatrun/cleat/integration/tools"
)

func main() {
	write := flag.String("write", "", "put the tables into this `document`, between its markers")
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	ok, err := report(ctx, *write)
	if err != nil {
		fmt.Fprintln(os.Stderr, "compatibility:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// report runs it all and says whether all works that works with containerd's own
// shim.
func report(ctx context.Context, document string) (bool, error) {
	found := results{}
	if err := found.test(ctx, room{folder: walks}, ""); err != nil {
		return false, err
	}
	for _, room := range rooms() {
		if room.own {
			continue
		}
		if err := found.test(ctx, room, room.pattern()); err != nil {
			return false, err
		}
		if room.release.Name == "" {
			continue
		}
		if err := found.compare(ctx, room); err != nil {
			return false, err
		}
	}
	names, err := versions(ctx)
	if err != nil {
		return false, err
	}
	text, ok := tables(found, names)
	fmt.Print(text)
	if document != "" {
		if err := put(document, text); err != nil {
			return false, err
		}
	}
	return ok, nil
}

// rounds bounds how often the tests of a client are run with both shims until it is
// known that what fails now and then with cleat does so without it, too.
const rounds = 6

// compare runs the tests of a room with the shim of its release of containerd, and
// then both again as long as cleat seems to be worse.
func (r results) compare(ctx context.Context, ours room) error {
	own := ours.withOwn()
	if err := r.test(ctx, own, own.pattern()); err != nil {
		return err
	}
	for range rounds - 1 {
		worse := slices.DeleteFunc(own.names(), func(test string) bool { return !r.of(ours, test).worse() })
		if len(worse) == 0 {
			return nil
		}
		fmt.Fprintf(os.Stderr, "compatibility: again, because of %s\n", strings.Join(worse, ", "))
		for _, room := range []room{ours, own} {
			if err := r.test(ctx, room, room.pattern()); err != nil {
				return err
			}
		}
	}
	return nil
}

// testTime bounds the tests of one folder, with the first build of all that they
// need.
const testTime = 40 * time.Minute

// test runs tests of a room and adds what they give.
func (r results) test(ctx context.Context, in room, run string) error {
	folder := in.about()
	fmt.Fprintf(os.Stderr, "compatibility: %s ...", folder)
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count", "1", "-timeout", testTime.String(), "-run", run, in.folder)
	cmd.Env = append(os.Environ(), walk.EnvAll+"=1", tools.EnvContainerd+"="+in.release.Name)
	if in.own {
		cmd.Env = append(cmd.Env, "CLEAT_TEST_RUNTIME=io.containerd.runc.v2")
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the tests of %s: %w", folder, err)
	}
	count, failed, read := r.read(folder, stdout)
	err = cmd.Wait()
	fmt.Fprintf(os.Stderr, " %d tests, %d of them failed, %.0f s\n", count, failed, time.Since(began).Seconds())
	if err != nil && (failed > 0 || in.own && count > 0) {
		err = nil // they say so themselves; what containerd's own shim leaves is not ours
	}
	if err != nil {
		err = fmt.Errorf("the tests of %s: %w\n%s%s", folder, err, stderr.String(), r[folder].Output)
	}
	return errors.Join(ctx.Err(), read, err)
}
