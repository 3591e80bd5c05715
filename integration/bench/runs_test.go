package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
)

// A budget is met when it is met in each of the last three whole runs of one program.
func TestBudgetsAreMetInARow(t *testing.T) {
	h, dir := history{}, t.TempDir()
	run := func(program string, life, size float64) {
		t.Helper()
		r := newResults("full")
		r.Machine.Program, r.Machine.Load = program, "0.10"
		r.add("life.total", cleat, life)
		r.add("life.total", stock, 100)
		r.add("size.shim", cleat, size)
		r.summarise()
		h.add(r)
		if err := h.write(dir); err != nil {
			t.Fatal(err)
		}
		h = readHistory(dir)
	}
	look := func(program string) (runs int, life, size inAll) {
		of := h.of("full", machine{Program: program})
		for _, all := range overRuns(of) {
			switch all.Metric {
			case "life.total":
				life = all
			case "size.shim":
				size = all
			}
		}
		return len(of), life, size
	}
	run("a", 90, 1)
	run("a", 50, 1)
	run("a", 50, 7)
	if n, life, size := look("a"); n != 3 || life.met != 2 || size.met != 2 {
		t.Errorf("%d runs, life %+v, size %+v", n, life, size)
	}
	run("a", 50, 1) // the first goes
	n, life, size := look("a")
	if n != 3 || life.met != 3 || size.met != 2 || strings.Join(life.values, "|") != "50.0 ms (0.50 ×)|50.0 ms (0.50 ×)|50.0 ms (0.50 ×)" {
		t.Errorf("%d runs, life %+v, size %+v", n, life, size)
	}
	table := runsTable(h.of("full", machine{Program: "a"}))
	for _, want := range []string{
		"met in all 3 |", ", load 0.10 |",
		"| 50.0 ms (0.50 ×) | 50.0 ms (0.50 ×) | 50.0 ms (0.50 ×) | met |",
		"| 1.00 MB | **7.00 MB** | 1.00 MB | **not met**, in 2 of 3 |",
		"| not measured | not measured | not measured | **not met**, in 0 of 3 |",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("there is no %q in\n%s", want, table)
		}
	}
	if n, _, _ := look("b"); n != 0 || runsTable(nil) != "" {
		t.Errorf("another program has %d runs", n)
	}
	run("b", 50, 1)
	if n, life, _ := look("b"); n != 1 || life.met != 1 {
		t.Errorf("%d runs, life %+v", n, life)
	}
	if n, _, _ := look("a"); n != 0 {
		t.Errorf("%d runs of a program that another one came after", n)
	}
}

// A record that is cut off, or of another time, keeps no run from being counted.
func TestBrokenRecordBeginsAnew(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"full": 1}`, `{"full": [{"Began": "x"}]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(historyPath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newResults("full")
		r.Machine.Program = "a"
		h := readHistory(dir)
		h.add(r)
		if n := len(h.of("full", r.Machine)); n != 1 {
			t.Errorf("%q: %d runs", text, n)
		}
	}
}

// stopper is where progress is shown; it ends the run when it has seen a text for the
// nth time.
type stopper struct {
	bytes.Buffer
	text string
	nth  int
	stop func()
}

func (s *stopper) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if strings.Count(s.String(), s.text) == s.nth {
		s.stop()
	}
	return n, err
}

// Of runs one after another each counts that was whole: not the one that is cut
// short, and no part.
func TestOnlyWholeRunsCount(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir := t.TempDir()
	progress := &stopper{text: "] floor:", nth: 3, stop: cancel}
	// What needs no root takes no second.
	err := run(ctx, []string{"-root=false", "-form", "tiny", "-out", dir, "-runs", "4"}, progress)
	if err == nil || !strings.Contains(err.Error(), "interrupted") || strings.Contains(progress.String(), "Run 4 of 4") {
		t.Errorf("%v\n%s", err, progress)
	}
	if r := read(t, dir); !r.Interrupted {
		t.Error("the results do not say that they are of a run cut short")
	}
	if n := len(readHistory(dir)["tiny"]); n != 2 {
		t.Errorf("%d runs count\n%s", n, progress)
	}
	again, done := context.WithTimeout(t.Context(), limit)
	defer done()
	if err := run(again, []string{"-root=false", "-form", "tiny", "-out", dir, "-only", "size"}, &bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	if n := len(readHistory(dir)["tiny"]); n != 2 {
		t.Errorf("a part has made %d of the 2 runs that count", n)
	}
}
