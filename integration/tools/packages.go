package tools

// What the machine itself has to bring, and where it comes from when it does
// not.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// need is one thing that must be on the machine before anything is built.
type need struct {
	what string // in the words of the message when it is missing
	pkg  string // Debian's and Ubuntu's package
	have func() bool
}

func command(name string) func() bool {
	return func() bool { _, err := exec.LookPath(name); return err == nil }
}

var needs = []need{
	{"make", "make", command("make")},
	{"a C compiler (gcc or cc; runc has C in it)", "gcc", func() bool { return command("gcc")() || command("cc")() }},
	{"the C library's headers (stdlib.h; runc has C in it)", "libc6-dev", func() bool {
		for _, dir := range []string{"/usr/include", "/usr/local/include"} {
			if _, err := os.Stat(dir + "/stdlib.h"); err == nil {
				return true
			}
		}
		return false
	}},
	{"a statically linked busybox (the test image holds nothing else)", "busybox-static", func() bool { _, err := findBusybox(); return err == nil }},
	{"nsenter and unshare (util-linux; the tests of --cni get a network of their own)", "util-linux", func() bool { return command("nsenter")() && command("unshare")() }},
}

// packages brings what building and testing on this machine takes.
func (b *builder) packages(ctx context.Context) error { return b.install(ctx, needs) }

// install installs what is missing of a list when it can (root on Debian or
// Ubuntu), and otherwise says exactly what is missing.
func (b *builder) install(ctx context.Context, needs []need) error {
	missing := absent(needs)
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for _, n := range missing {
		names = append(names, n.pkg)
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, names...)
	if os.Geteuid() != 0 || !command("apt-get")() {
		return explain(missing, install)
	}
	err := b.step("install "+strings.Join(names, " ")+" with apt-get", func() error {
		env := []string{"DEBIAN_FRONTEND=noninteractive"}
		if run(ctx, "/", env, "apt-get", install...) == nil {
			return nil
		}
		// The usual reason is a package list that is old or absent.
		if err := run(ctx, "/", env, "apt-get", "update"); err != nil {
			return err
		}
		return run(ctx, "/", env, "apt-get", install...)
	})
	if err != nil {
		return errors.Join(err, explain(missing, install))
	}
	if still := absent(needs); len(still) > 0 {
		return explain(still, install)
	}
	return nil
}

func absent(needs []need) []need {
	var list []need
	for _, n := range needs {
		if !n.have() {
			list = append(list, n)
		}
	}
	return list
}

// explain is the error that names what is missing and one command to get it.
func explain(missing []need, install []string) error {
	var text strings.Builder
	text.WriteString("this machine lacks:\n")
	for _, n := range missing {
		fmt.Fprintf(&text, "  - %s\n", n.what)
	}
	fmt.Fprintf(&text, "on Debian or Ubuntu: apt-get %s", strings.Join(install, " "))
	return errors.New(text.String())
}
