package main

// The tables, in Markdown.

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
	"github.com/cleatrun/cleat/integration/tools"
)

// walks is the folder of the walks.
const walks = "./compatibility/walk"

// table is one under way.
type table struct {
	text  strings.Builder
	notes *notes
	ok    bool // all that was tried works
}

// notes are the footnotes of all tables: why a cell does not say yes.
type notes struct{ list []string }

// note is the mark of a reason in a cell.
func (n *notes) note(reason string) string {
	i := slices.Index(n.list, reason)
	if i < 0 {
		i = len(n.list)
		n.list = append(n.list, reason)
	}
	return fmt.Sprintf("[^%d]", i+1)
}

// row is a line of a table; its first cells say what it is about.
func (t *table) row(cells ...string) { fmt.Fprintf(&t.text, "| %s |\n", strings.Join(cells, " | ")) }

// head begins the table.
func (t *table) head(cells ...string) {
	t.row(cells...)
	t.row(slices.Repeat([]string{"---"}, len(cells))...)
}

// cell is what tests have given that stand for one thing.
func (t *table) cell(tests ...result) string {
	passed, skipped, cannot := false, "", ""
	for _, test := range tests {
		t.ok = t.ok && !test.worse()
		switch test.Outcome {
		case "pass":
			passed = true
		case "skip":
			reason, shown := strings.CutPrefix(test.reason(), tools.Cannot)
			note := t.notes.note(reason)
			if shown && !strings.Contains(cannot, note) {
				cannot += note
			} else if !shown {
				skipped = "skipped" + note
			}
		}
	}
	for _, test := range tests {
		if test.Outcome == "" {
			return "–"
		}
	}
	for _, test := range tests {
		if test.Outcome == "fail" {
			return "✗" + t.notes.note(test.failure())
		}
	}
	switch {
	case skipped != "":
		return skipped
	case passed && cannot != "":
		return "partly" + cannot
	case cannot != "":
		return "no" + cannot
	case passed:
		return "✓"
	}
	return ""
}

// steps are the cells of a walk.
func (t *table) steps(found results, test string, steps []walk.Step) (cells []string) {
	// What comes before the first step, such as the start of containerd.
	if whole := found[walks+" "+test]; whole.Outcome == "fail" && found[walks+" "+test+"/"+steps[0].Name].Outcome == "" {
		cells = append(cells, t.cell(whole))
		steps = steps[1:]
	}
	for _, step := range steps {
		cells = append(cells, t.cell(found[walks+" "+test+"/"+step.Name]))
	}
	return cells
}

func namesOf(steps []walk.Step) (names []string) {
	for _, step := range steps {
		names = append(names, step.Name)
	}
	return names
}

// explain lists what each step shows.
func explain(text *strings.Builder, steps []walk.Step) {
	for _, step := range steps {
		fmt.Fprintf(text, "- **%s**: %s\n", step.Name, step.What)
	}
	text.WriteString("\n")
}

// tables are all of them, and whether all that was tried works. names are those of
// releases.
func tables(found results, names map[string]string) (string, bool) {
	var text strings.Builder
	n := &notes{}
	ok := true
	add := func(title string, steps []walk.Step, fill func(t *table)) {
		t := &table{notes: n, ok: true}
		fill(t)
		fmt.Fprintf(&text, "## %s\n\n", title)
		if len(steps) > 0 {
			explain(&text, steps)
		}
		text.WriteString(t.text.String() + "\n")
		ok = ok && t.ok
	}

	add("containerd and OCI runtimes", walk.Steps, func(t *table) {
		t.head(append([]string{"containerd", "OCI runtime", "client"}, namesOf(walk.Steps)...)...)
		for _, c := range tools.Containerds {
			for _, oci := range walk.Runtimes {
				for _, user := range walk.Users {
					cells := t.steps(found, fmt.Sprintf("TestWalk/%s/%s/%s", c.Name, oci, user), walk.Steps)
					t.row(append([]string{names[c.Name], names[oci], user}, cells...)...)
				}
			}
		}
	})
	add("Another containerd under what runs", walk.Changes, func(t *table) {
		t.head(append([]string{"from", "to", "client"}, namesOf(walk.Changes)...)...)
		for _, from := range tools.Containerds {
			for _, to := range tools.Containerds {
				for _, user := range walk.Users {
					test := fmt.Sprintf("TestChange/%s/%s/%s", from.Name, to.Name, user)
					if found[walks+" "+test].Outcome == "" {
						continue // one of those that are not tried
					}
					t.row(append([]string{names[from.Name], names[to.Name], user}, t.steps(found, test, walk.Changes)...)...)
				}
			}
		}
	})
	add("Pods whose shim is containerd's own, or an earlier cleat", walk.Joins, func(t *table) {
		t.head(append([]string{"shim", "containerd"}, namesOf(walk.Joins)...)...)
		for _, shim := range [][2]string{{"", "its own"}, {"cleat-", "cleat of the state before"}} {
			for _, c := range tools.Containerds {
				if test := "TestJoin/" + shim[0] + c.Name; found[walks+" "+test].Outcome != "" {
					t.row(append([]string{shim[1], names[c.Name]}, t.steps(found, test, walk.Joins)...)...)
				}
			}
		}
	})
	add("Clients", nil, func(t *table) {
		t.head(append([]string{"client"}, columns...)...)
		for _, room := range rooms() {
			ok := t.ok
			for _, kind := range room.kinds {
				cells := []string{names[kind.name]}
				if cells[0] == "" {
					cells[0] = kind.name
				}
				for _, column := range columns {
					var tests []result
					for _, test := range room.tests[column] {
						tests = append(tests, found.of(room, test+kind.sub))
					}
					cells = append(cells, t.cell(tests...))
				}
				t.row(cells...)
			}
			if room.own {
				t.ok = ok // nothing is asked of containerd's shim
			}
		}
	})
	for i, reason := range n.list {
		fmt.Fprintf(&text, "[^%d]: `%s`\n", i+1, strings.ReplaceAll(reason, "`", "'"))
	}
	return strings.TrimRight(text.String(), "\n") + "\n", ok
}

// The generated part of the document is between these lines.
const (
	begin = "<!-- what follows is written by `make compatibility` -->\n"
	end   = "<!-- end of what is written by `make compatibility` -->\n"
)

// put replaces the generated part of a document.
func put(document, text string) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s lacks the lines %q and %q", document, begin, end)
	}
	return os.WriteFile(document, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
