package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cleatrun/cleat/integration/daemon"
)

// shown is how many lines of a command's output are shown.
const shown = 8

// teller does steps and tells them. After the first that fails it does nothing
// more.
type teller struct {
	ctx    context.Context
	daemon *daemon.Daemon
	err    error
	output string // of the last command
}

func (t *teller) step(what string) {
	if t.err == nil {
		fmt.Printf("\n━━ %s\n", what)
	}
}

// ctr runs ctr, which must end with that status.
func (t *teller) ctr(status int, args ...string) {
	if t.err != nil {
		return
	}
	fmt.Printf("$ ctr %s\n", quoted(args))
	out, err := t.daemon.Ctr(t.ctx, args...).CombinedOutput()
	t.output = worthwhile(string(out))
	show(t.output)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	switch {
	case err != nil:
		t.err = fmt.Errorf("ctr %s: %w", args[0], err)
	case code != status:
		t.err = fmt.Errorf("ctr %s ended with status %d, not %d", quoted(args), code, status)
	case code != 0:
		fmt.Printf("   (status %d)\n", code)
	}
}

// wants holds the output of the last command against what it should show.
func (t *teller) wants(text string) {
	if t.err == nil && !strings.Contains(t.output, text) {
		t.err = fmt.Errorf("%q is not in the output", text)
	}
}

// do does something else than a command of ctr.
func (t *teller) do(what string, f func() (string, error)) {
	if t.err != nil {
		return
	}
	if what != "" {
		fmt.Println(what)
	}
	text, err := f()
	t.output = text
	show(text)
	t.err = err
}

// grown returns what is in a file as soon as there is something.
func (t *teller) grown(path string) (string, error) {
	for {
		text, err := os.ReadFile(path)
		if err != nil || len(text) > 0 {
			return string(text), err
		}
		if err := t.pause(); err != nil {
			return "", err
		}
	}
}

// stopped returns when ctr lists the task as stopped.
func (t *teller) stopped(id string) error {
	for {
		out, err := t.daemon.Ctr(t.ctx, "tasks", "ls").Output()
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, id) && strings.Contains(line, "STOPPED") {
				return nil
			}
		}
		if err := t.pause(); err != nil {
			return err
		}
	}
}

// pause waits a moment before something is asked again.
func (t *teller) pause() error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// worthwhile leaves out what ctr says about the host's cgroup version each time.
func worthwhile(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "DEPRECATION") {
			kept = append(kept, strings.TrimRight(line, " \n"))
		}
	}
	return strings.Trim(strings.Join(kept, "\n"), "\n")
}

func show(text string) {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if i == shown {
			fmt.Printf("   … (%d more lines)\n", len(lines)-shown)
			return
		}
		fmt.Println("  ", line)
	}
}

// quoted is a command line as one would type it.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, " $'\";") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
