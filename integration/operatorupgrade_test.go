package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/terminal"
	"github.com/cleatrun/cleat/integration/tools"
)

// install puts the shim under test into a file of the place, with something behind
// its end by which it is another program.
func (o operator) install(name, more string) string {
	o.t.Helper()
	program, err := os.ReadFile(programs.Shim)
	if err != nil {
		o.t.Fatal(err)
	}
	path := o.place.Path(name)
	if err := os.WriteFile(path+".new", append(program, more...), 0o755); err != nil {
		o.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// pending are the ids of the shims that run another program than is installed.
func (o operator) pending() (ids []string) {
	o.t.Helper()
	var entries []shimEntry
	o.reads(&entries, "ps")
	for _, e := range entries {
		if e.Program.Pending {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func TestOperatorUpgradesShims(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	const name = "containerd-shim-cleat-v2"
	program := o.install(name, "")
	var all []*member
	for _, id := range []string{"crowd", "crowd-2", "left", "right"} {
		name, _, _ := strings.Cut(id, "-")
		m := l.prepare(id, group(name))
		m.program = program
		all = append(all, m.boot().run())
	}
	g := newGate(t)
	stuck := l.prepare("stuck")
	stuck.program = program
	stuck.options.BinaryName = scripted(t, `[ "$command" = pause ] && `+g.wait())
	stuck.boot().run()
	stock := l.prepare("stock")
	stock.program = programs.StockShim
	stock.boot().run()
	if ids := o.pending(); len(ids) > 0 {
		t.Errorf("nothing was installed and an upgrade is pending of %q", ids)
	}

	o.install(name, "another program")
	all4 := []string{"crowd", "left", "right", "stuck"}
	if ids := o.pending(); !slices.Equal(ids, all4) {
		t.Errorf("an upgrade is pending of %q", ids)
	}
	shows(t, o.types(0, "ps"), "left", "upgrade pending: ", "is installed")
	text := o.types(0, "upgrade", "--all", "--dry-run")
	shows(t, text, "4 of 4", "crowd", "would work") // the one with the most containers is the last
	shows(t, text, "4 can be upgraded, 1 of another make left alone")
	if ids := o.pending(); !slices.Equal(ids, all4) {
		t.Errorf("after a dry run an upgrade is pending of %q", ids)
	}

	// What fails stops the others.
	paused := make(chan error, 1)
	go func() {
		_, err := stuck.shim.Pause(stuck.ctx, &task.PauseRequest{ID: "stuck"})
		paused <- err
	}()
	g.reached()
	shows(t, o.types(0, "upgrade", "stuck", "--dry-run"), "would work, once 1 calls to the OCI runtime have ended")
	text = o.types(1, "upgrade", "left", "stuck", "right", "left", "--patience", "50ms")
	shows(t, text, "1 of 3", "left", "calls waited")
	shows(t, text, "2 of 3", "stuck", "FAILED: the shim could not be brought to a stop", "Pause", "does not end\n")
	shows(t, text, "1 upgraded, 1 failed, 1 not tried")
	frozenPID := all[3].shimPID()
	if err := unix.Kill(frozenPID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	text = o.types(1, "upgrade", "--all", "--patience", "50ms")
	shows(t, text, "2 of 4", "stuck", "FAILED: the shim could not be brought to a stop")
	shows(t, text, "1 run it already, 1 failed, 2 not tried")
	text = o.types(1, "upgrade", "--all", "--patience", "50ms", "--keep-going")
	shows(t, text, "3 of 4", "crowd", "calls waited")
	shows(t, text, "4 of 4", "right", "FAILED: does not answer: it is stopped by a signal")
	shows(t, text, "1 upgraded, 1 run it already, 2 failed")
	if err := unix.Kill(frozenPID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}

	// Who loses patience has begun it all the same.
	tty := terminal.Start(t, o.cmd("upgrade", "stuck", "crowd"), 50, 250)
	tty.Expect("1 of 2")
	eventually(t, func() error {
		var i struct{ Requests []struct{ Method string } }
		err := stuck.shim.Control(stuck.ctx, "Inspect", nil, &i)
		if err == nil && !slices.Contains(i.Requests, struct{ Method string }{"Upgrade"}) {
			err = fmt.Errorf("no upgrade is under way: %v", i)
		}
		return err
	})
	tty.Write("\x03")
	if code := tty.End(); code != 1 {
		t.Errorf("an interrupted upgrade ended with %d", code)
	}
	shows(t, tty.Shown(), "FAILED: interrupted")
	shows(t, tty.Shown(), "1 failed, 1 not tried")
	g.let()
	if err := <-paused; err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if ids := o.pending(); slices.Contains(ids, "stuck") {
			return fmt.Errorf("an upgrade is pending of %q", ids)
		}
		return nil
	})
	var outcomes []struct{ ID, Result string }
	o.reads(&outcomes, "upgrade", "--all")
	if got := fmt.Sprint(outcomes); got != "[{left current} {right upgraded} {stuck current} {crowd current}]" {
		t.Errorf("at last: %s", got)
	}
	if ids := o.pending(); len(ids) > 0 {
		t.Errorf("after all upgrades one is pending of %q", ids)
	}
	shows(t, o.types(0, "inspect", "left"), "program", "upgraded 1 times")
	stuck.resume()
	for _, m := range append(all, stuck, stock) {
		m.end()
	}
}

func TestOperatorIsToldOfProgramsThatCannotReplaceAShim(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	l := newLone(t)
	o := newOperator(t, l.Place)
	m := l.member("refused").run()
	stock := l.prepare("stock")
	stock.program = programs.StockShim
	stock.boot().run()
	open := o.install("open", "x")
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, words := range map[string]string{
		"/bin/true":                  "is no cleat",
		programs.StockShim:           "is no cleat: it is containerd's own shim",
		programs.Cleat:               "is no cleat: it is the program github.com/cleatrun/cleat/cmd/cleat",
		filepath.Dir(programs.Cleat): "is a directory",
		open:                         "can be written by everybody",
		"/no/such/file":              "does not exist",
		"go.mod":                     "is not executable",
	} {
		if path == "go.mod" {
			path = l.Path("text")
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o.says(1, words, "upgrade", "refused", "--to", path)
		o.says(1, words, "upgrade", "--all", "--dry-run", "--to", path)
	}
	o.says(1, "is served by containerd's own shim", "upgrade", "stock")
	o.says(1, "no shim or container", "upgrade", "refused", "nothing")
	o.says(2, "give ids, or --all", "upgrade")
	o.says(2, "give ids, or --all", "upgrade", "--all", "refused")

	// A shim of a version to come, whose state this one does not know.
	future := l.prepare("future")
	future.program = variant(t, tools.LaterState)
	future.boot().run()
	for _, more := range []string{"--dry-run", "--keep-going"} {
		text := o.types(1, "upgrade", "future", "--to", programs.Shim, more)
		shows(t, text, "future", "FAILED", "can be handed to version 3 and later")
	}
	shows(t, o.types(0, "ps"), "future", future.shimPID())

	if info, err := m.shim.Info(m.ctx); err != nil || info.Upgrades != 0 {
		t.Errorf("after refused upgrades: %+v, %v", info, err)
	}
	for _, m := range []*member{m, stock, future} {
		m.end()
	}
}
