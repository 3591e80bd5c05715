package main

import (
	"strings"
	"testing"
)

func outcomes(list ...outcome) []result {
	var results []result
	for _, o := range list {
		results = append(results, result{Outcome: o})
	}
	return results
}

func TestACandidateIsWorseWhenItFailsWhatStockPassesEveryTime(t *testing.T) {
	columns := []string{"stock", "cleat", "drop-in"}
	good, bad := outcomes(passed, passed), outcomes(failed, failed)
	sometimes := outcomes(passed, failed)
	none := outcomes(skipped, skipped)
	for _, c := range []struct {
		name                 string
		stock, cleat, dropIn []result
		want                 verdict
	}{
		{"all pass", good, good, good, ""},
		{"none can run it", none, none, none, ""},
		{"all fail", bad, bad, bad, ""},
		{"cleat fails", good, bad, good, worse},
		{"the drop-in fails", good, good, bad, worse},
		{"one round of many fails", good, sometimes, good, worse},
		{"it did not begin", good, outcomes(absent, absent), good, worse},
		{"it hangs", good, outcomes(hung, hung), good, worse},
		{"cleat does not run it", good, none, good, differs},
		{"stock fails", bad, good, good, better},
		{"stock fails now and then", sometimes, good, good, better},
		{"stock fails now and then, cleat always", sometimes, bad, good, differs},
		{"all fail now and then", sometimes, sometimes, sometimes, ""},
		{"better and worse", bad, good, none, differs},
	} {
		if got := judge(columns, [][]result{c.stock, c.cleat, c.dropIn}); got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}

func TestTheTableShowsEachTestAndTheSubtestsThatDiffer(t *testing.T) {
	columns := []string{"stock", "cleat"}
	one := func(results map[string]result) []round { return []round{{Results: results}} }
	r := report{Columns: columns, Tests: collect(columns, [][]round{
		one(map[string]result{"TestA": {Outcome: passed}, "TestA/x": {Outcome: passed}, "TestA/y": {Outcome: passed},
			"TestB": {Outcome: skipped, Output: "log_hook.go:47: noise\n    b_test.go:12: no criu"}}),
		one(map[string]result{"TestA": {Outcome: failed}, "TestA/x": {Outcome: passed}, "TestA/y": {Outcome: failed},
			"TestB": {Outcome: skipped, Output: "b_test.go:12: no criu"}}),
	})}
	var out strings.Builder
	r.table(&out)
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{"test stock cleat", "TestA ok FAIL <- WORSE", "TestA/y ok FAIL <- WORSE", "TestB skip skip no criu"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("table:\n%s\nnot:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := r.worse(); len(list) != 1 || list[0].Test != "TestA/y" {
		t.Errorf("worse: %+v, not TestA/y alone", list)
	}
}
