package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// bench is an engine in the hands of one test.
type bench struct {
	*engine
	t          *testing.T
	ctx        context.Context
	containers []string // removed by clear
}

// ask runs docker to its end, whatever that is.
func (b *bench) ask(args ...string) answer {
	b.t.Helper()
	return finish(b.t, b.docker(b.ctx, args...), nil)
}

// do runs docker, which must succeed, and returns what it wrote.
func (b *bench) do(args ...string) string {
	b.t.Helper()
	a := b.ask(args...)
	if a.code != 0 {
		b.t.Fatalf("docker %s ended with %d:\n%s%s", strings.Join(args, " "), a.code, a.stdout, a.stderr)
	}
	return strings.TrimSpace(a.stdout)
}

// run is the arguments of docker run with the runtime under test and no network.
func (b *bench) run(flags []string, command ...string) []string {
	return slices.Concat([]string{"run", "--network", "none"}, b.kind.flags, flags, []string{imageName}, command)
}

// start runs a container in the background; it is removed with the test.
func (b *bench) start(name string, flags []string, command ...string) {
	b.t.Helper()
	b.containers = append(b.containers, name)
	b.do(b.run(append([]string{"--detach", "--name", name}, flags...), command...)...)
}

// clear removes what start has made.
func (b *bench) clear() {
	for _, name := range b.containers {
		// The test's own context may have ended.
		a := finish(b.t, b.docker(context.Background(), "rm", "--force", name), nil)
		if a.code != 0 && !strings.Contains(a.stderr, "No such container") {
			b.t.Errorf("docker rm --force %s ended with %d: %s", name, a.code, a.stderr)
		}
	}
}

// tells asks docker inspect.
func (b *bench) tells(name, format string) string {
	b.t.Helper()
	return b.do("inspect", "--format", format, name)
}

// becomes waits until docker inspect tells want.
func (b *bench) becomes(name, format, want string) {
	b.t.Helper()
	b.eventually(func() error {
		if got := b.tells(name, format); got != want {
			return fmt.Errorf("%s of %s is %q, want %q", format, name, got, want)
		}
		return nil
	})
}

// logged waits until docker logs has text.
func (b *bench) logged(name, text string) {
	b.t.Helper()
	b.eventually(func() error {
		if got := b.do("logs", name); !strings.Contains(got, text) {
			return fmt.Errorf("the logs of %s are %q and have no %q", name, got, text)
		}
		return nil
	})
}

func (b *bench) eventually(holds func() error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, settleTime)
	defer cancel()
	if err := until(ctx, holds); err != nil {
		b.t.Fatal(err)
	}
}

// expect compares how a command ended, and what it wrote.
func (b *bench) expect(what string, got, want answer) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: ended with %d, wrote %q and, to stderr, %q; want %d, %q and %q",
			what, got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
	}
}
