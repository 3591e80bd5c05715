package main

import (
	"strings"
	"testing"
)

// lines joins what a test binary prints; a leading ! stands for the marker.
func lines(text ...string) *strings.Reader {
	return strings.NewReader(strings.ReplaceAll(strings.Join(text, "\n"), "!", marker) + "\n")
}

func TestResultsAreReadFromTheMarkedLinesOnly(t *testing.T) {
	s := newStream(func(string, result) {})
	err := s.read(lines(
		"!=== RUN   TestA",
		"--- PASS: TestA (9.99s)", // a test's own words
		"half a line!=== RUN   TestA/one",
		"    a_test.go:7: wrong",
		"    !--- FAIL: TestA/one (0.25s)",
		"!--- FAIL: TestA (1.50s)",
		"!=== RUN   TestB",
		"    b_test.go:1: not here",
		"!--- SKIP: TestB (0.00s)",
		"!=== RUN   TestC",
		"!--- PASS: TestC (0.00s)",
		"FAIL"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]result{
		"TestA":     {failed, 1.5, "--- PASS: TestA (9.99s)\nhalf a line"},
		"TestA/one": {failed, 0.25, "a_test.go:7: wrong"},
		"TestB":     {skipped, 0, "b_test.go:1: not here"},
		"TestC":     {passed, 0, ""},
	} {
		if got := s.results[name]; got != want {
			t.Errorf("%s: %+v, not %+v", name, got, want)
		}
	}
	if len(s.results) != 4 {
		t.Errorf("%d results, not 4: %v", len(s.results), s.results)
	}
}

func TestOutputOfParallelTestsGoesToTheOneThatIsNamed(t *testing.T) {
	s := newStream(func(string, result) {})
	if err := s.read(lines(
		"!=== RUN   TestA", "!=== PAUSE TestA", "!=== RUN   TestB", "!=== PAUSE TestB",
		"!=== CONT  TestA", "!=== CONT  TestB", "of b",
		"!=== NAME  TestA", "of a",
		"!--- FAIL: TestB (0.00s)", "!--- FAIL: TestA (0.00s)")); err != nil {
		t.Fatal(err)
	}
	if a, b := s.results["TestA"].Output, s.results["TestB"].Output; a != "of a" || b != "of b" {
		t.Errorf("output of A is %q, of B %q", a, b)
	}
}

func TestOnlyThoseThatRanAreCutOff(t *testing.T) {
	s := newStream(func(string, result) {})
	if err := s.read(lines(
		"!=== RUN   TestWaits", "!=== PAUSE TestWaits",
		"!=== RUN   TestEnds", "!--- PASS: TestEnds (0.00s)",
		"!=== RUN   TestRuns", "last words")); err != nil {
		t.Fatal(err)
	}
	s.cut(hung)
	if got := s.results["TestRuns"]; got.Outcome != hung || got.Output != "last words" {
		t.Errorf("TestRuns: %+v", got)
	}
	if got, ok := s.results["TestWaits"]; ok {
		t.Errorf("TestWaits has the result %+v, but it never ran", got)
	}
	if got := s.results["TestEnds"]; got.Outcome != passed {
		t.Errorf("TestEnds: %+v", got)
	}
}
