package process

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// What containerd's clients and its own shim allow when, written down from the
// behaviour of the latter: a state is where the operation leads; - is
// FailedPrecondition, have is AlreadyExists, none is NotFound.
const (
	initTable = `
            create   prepare     start    pause   resume   update   checkpoint  add        start-exec  kill        resize      delete   exit
absent      created  restorable  none     none    none     none     none        none       none        none        none        none     none
created     have     have        running  -       -        created  -           created    created     created     created     deleted  stopped
restorable  have     have        running  -       -        -        -           -          -           -           restorable  deleted  stopped
running     have     have        -        paused  -        running  running     running    running     running     running     -        stopped
paused      have     have        -        -       running  paused   paused      -          -           paused      paused      -        stopped
stopped     have     have        -        -       -        -        -           -          -           none        -           deleted  -
deleted     none     none        none     none    none     none     none        none       none        none        none        none     none
`
	// An exec is neither paused nor restored, and knows no execs.
	execTable = `
            create   prepare     start    pause   resume   update   checkpoint  add        start-exec  kill        resize      delete   exit
absent      created  none        none     none    none     none     none        none       none        none        none        none     none
created     have     have        running  -       -        -        -           -          -           -           created     deleted  stopped
restorable  none     none        none     none    none     none     none        none       none        none        none        none     none
running     have     have        -        -       -        -        -           -          -           running     running     -        stopped
paused      none     none        none     none    none     none     none        none       none        none        none        none     none
stopped     have     have        -        -       -        -        -           -          -           none        -           deleted  -
deleted     none     none        none     none    none     none     none        none       none        none        none        none     none
`
)

// render writes a table as above, so that a change of one cell is one line in
// the test's output.
func render(t *testing.T, exec bool) string {
	t.Helper()
	columns := []string{"create", "prepare", "start", "pause", "resume", "update", "checkpoint", "add", "start-exec", "kill", "resize", "delete", "exit"}
	widths := []int{9, 12, 9, 8, 9, 9, 12, 11, 12, 12, 12, 9, 7}
	var text strings.Builder
	line := func(first string, cells []string) {
		row := fmt.Sprintf("%-12s", first)
		for i, c := range cells {
			row += fmt.Sprintf("%-*s", widths[i], c)
		}
		text.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	line("", columns)
	for s := Absent; s <= Deleted; s++ {
		var cells []string
		for op := OpCreate; op <= OpExit; op++ {
			cells = append(cells, cellOf(t, exec, s, op))
		}
		line(s.String(), cells)
	}
	return "\n" + text.String()
}

func cellOf(t *testing.T, exec bool, s State, op Operation) string {
	t.Helper()
	next, err := Next(exec, s, op)
	if err != nil && next != s {
		t.Errorf("a refused %q leads from %s to %s", op, s, next)
	}
	switch {
	case err == nil:
		return next.String()
	case errdefs.IsFailedPrecondition(err):
		if !strings.Contains(err.Error(), op.String()) || !strings.Contains(err.Error(), s.String()) {
			t.Errorf("error %q does not tell the operation %q and the state %q", err, op, s)
		}
		return "-"
	case errdefs.IsAlreadyExists(err):
		return "have"
	case errdefs.IsNotFound(err):
		return "none"
	}
	return err.Error()
}

func TestLifecycleIsTheOneThatClientsKnow(t *testing.T) {
	for name, c := range map[string]struct {
		exec bool
		want string
	}{"init": {false, initTable}, "exec": {true, execTable}} {
		got := render(t, c.exec)
		t.Logf("%s:%s", name, got)
		gotLines, wantLines := strings.Split(got, "\n"), strings.Split(c.want, "\n")
		for i := range max(len(gotLines), len(wantLines)) {
			if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
				t.Errorf("%s: line %d of the table is not\n%s", name, i, c.want)
				break
			}
		}
	}
}

// Clients look for these words (containerd's own tests of Kill do).
func TestKillOfAFinishedProcessSaysSo(t *testing.T) {
	for _, exec := range []bool{false, true} {
		_, err := Next(exec, Stopped, OpKill)
		if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "process already finished") {
			t.Errorf("error %v", err)
		}
	}
}
