package main

// The comparison: what each test gave on each candidate, side by side.

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is the whole answer; it is what -json writes.
type report struct {
	Containerd string     `json:"containerd"` // version
	Kernel     string     `json:"kernel"`
	Cgroups    string     `json:"cgroups"`
	Columns    []string   `json:"columns"`
	Rounds     [][]round  `json:"rounds"` // by column and round, without results
	Tests      []testLine `json:"tests"`
}

// testLine is one test in all columns.
type testLine struct {
	Test    string     `json:"test"`
	Results [][]result `json:"results"` // by column and round
	Verdict verdict    `json:"verdict,omitempty"`
}

// verdict says what differs from stock, "" if nothing does.
type verdict string

const (
	worse   verdict = "WORSE"   // stock passes every time, a candidate not
	better  verdict = "better"  // a candidate passes every time, stock not
	differs verdict = "differs" // otherwise, as when one skips what the other runs
)

// collect arranges rounds by test. A test appears as soon as any round has it.
func collect(columns []string, rounds [][]round) []testLine {
	names := map[string]bool{}
	for _, column := range rounds {
		for _, r := range column {
			for name := range r.Results {
				names[name] = true
			}
		}
	}
	var lines []testLine
	for _, name := range slices.Sorted(maps.Keys(names)) {
		line := testLine{Test: name}
		for _, column := range rounds {
			var results []result
			for _, r := range column {
				got, ok := r.Results[name]
				if !ok {
					got.Outcome = absent
				}
				results = append(results, got)
			}
			line.Results = append(line.Results, results)
		}
		line.Verdict = judge(columns, line.Results)
		lines = append(lines, line)
	}
	return lines
}

// judge compares all columns with stock's. The worst of them counts.
func judge(columns []string, results [][]result) verdict {
	stock := slices.Index(columns, candidates[0].name)
	if stock < 0 {
		return ""
	}
	var found verdict
	for i := range columns {
		was, is := every(results[stock]), every(results[i])
		switch {
		case i == stock || was == is:
		case was == passed && is != skipped:
			return worse
		case is == passed && was != skipped:
			if found == "" {
				found = better
			}
		default:
			found = differs
		}
	}
	return found
}

// every is the outcome that all rounds have in common, or "" if there is none.
func every(results []result) outcome {
	for _, r := range results {
		if r.Outcome != results[0].Outcome {
			return ""
		}
	}
	return results[0].Outcome
}

// table prints a line for each test, and one for each subtest that is not the
// same everywhere.
func (r *report) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "test\t%s\t\n", strings.Join(r.Columns, "\t"))
	for _, line := range r.Tests {
		if strings.Contains(line.Test, "/") && line.Verdict == "" {
			continue
		}
		fmt.Fprint(t, line.Test)
		for _, results := range line.Results {
			fmt.Fprintf(t, "\t%s", cellText(results))
		}
		fmt.Fprintf(t, "\t%s\n", note(line))
	}
	t.Flush()
}

// cellText is a column's outcome: one word if all rounds agree.
func cellText(results []result) string {
	if common := every(results); common != "" {
		return string(common)
	}
	var words []string
	for _, r := range results {
		words = append(words, string(r.Outcome))
	}
	return strings.Join(words, ",")
}

// note is the verdict, or why a test says nothing.
func note(line testLine) string {
	if line.Verdict != "" {
		return "<- " + string(line.Verdict)
	}
	for _, results := range line.Results {
		for _, r := range results {
			if r.Outcome != passed {
				return reason(r.Output)
			}
		}
	}
	return ""
}

// reason is the line of a test's output that most likely says why it did not
// pass: the last one that is not about the daemon.
func reason(output string) string {
	lines := strings.Split(output, "\n")
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		// "file_test.go:12: text" is what t.Skip and t.Fatal print.
		if place, text, ok := strings.Cut(line, ": "); ok && strings.Contains(place, "_test.go:") {
			const room = 90
			if len(text) > room {
				text = text[:room] + "..."
			}
			return text
		}
	}
	return ""
}

// tally counts outcomes in words.
func tally(counts map[outcome]int) string {
	var words []string
	for _, o := range []outcome{passed, failed, skipped, hung, crashed, absent} {
		if counts[o] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[o], o))
		}
	}
	return strings.Join(words, ", ")
}

// worse lists the tests that a candidate fails and stock passes, outer ones
// without the subtests that say the same more exactly.
func (r *report) worse() []testLine {
	var list []testLine
	for _, line := range r.Tests {
		if line.Verdict == worse {
			list = append(list, line)
		}
	}
	return slices.DeleteFunc(list, func(outer testLine) bool {
		return slices.ContainsFunc(list, func(inner testLine) bool {
			return strings.HasPrefix(inner.Test, outer.Test+"/")
		})
	})
}
