package main

// The tables of docs/performance.md, between markers: what is outside of them is
// written by hand.

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	markBegin = "<!-- bench: %s -->\n"
	markEnd   = "<!-- end -->"
)

// documentTables is what a document has, by name; "" is what was not measured.
func (r *results) documentTables(runs []wholeRun) map[string]string {
	all := map[string]string{"machine": r.machineLines(), "budgets": r.budgetTable(), "runs": runsTable(runs)}
	for _, t := range tables {
		all[t.name] = r.table(t)
	}
	return all
}

// checkDocument tells before anything is measured what would keep it from being
// written afterwards.
func checkDocument(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var failed error
	for name := range (&results{}).documentTables(nil) {
		if _, err := between(text, name, ""); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", path, err))
		}
	}
	if err := unix.Access(path, unix.W_OK); err != nil {
		failed = errors.Join(failed, fmt.Errorf("write %s: %w", path, err))
	}
	return failed
}

// document writes every table between its markers in a file. runs are the whole ones.
func (r *results) document(path string, runs []wholeRun) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var failed error
	for name, table := range r.documentTables(runs) {
		if table == "" {
			continue // what there is stays
		}
		if text, err = between(text, name, table); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", path, err))
		}
	}
	if failed != nil {
		return failed
	}
	return os.WriteFile(path, text, 0o644)
}

// between puts a table between its markers.
func between(text []byte, name, table string) ([]byte, error) {
	mark := fmt.Appendf(nil, markBegin, name)
	before, after, ok := bytes.Cut(text, mark)
	if !ok {
		return text, fmt.Errorf("there is no %q", strings.TrimSpace(string(mark)))
	}
	_, after, ok = bytes.Cut(after, []byte(markEnd))
	if !ok {
		return text, fmt.Errorf("the end of %s is missing", name)
	}
	return slices.Concat(before, mark, []byte("\n"+table+"\n"), []byte(markEnd), after), nil
}

func (r *results) machineLines() string {
	shim := r.Machine.Shim
	if _, after, ok := strings.Cut(shim, "Version: "); ok {
		shim, _, _ = strings.Cut(after, " ")
	}
	text := fmt.Sprintf("cleat %s, %s: Linux %s, %d CPUs, cgroup %s, %s; load %s when it began.", shim, r.Began.Format("2006-01-02"), r.Machine.Kernel, r.Machine.CPUs, r.Machine.Cgroups, r.Machine.Go, r.Machine.Load)
	if r.Form != "full" {
		text += " The " + r.Form + " form: fewer samples of fewer containers in shorter windows."
	}
	for _, what := range slices.Sorted(maps.Keys(r.LeftOut)) {
		first, _, _ := strings.Cut(r.LeftOut[what], "\n")
		text += fmt.Sprintf(" Left out: %s (%s).", what, first)
	}
	return text + "\n"
}

func (r *results) budgetTable() string {
	var text strings.Builder
	text.WriteString("| what | cleat | stock | ratio | budget | | limit | ratio to it | `-only` |\n|---|--:|--:|--:|--:|---|--:|--:|---|\n")
	for _, v := range r.Rows {
		if v.Verdict == "not measured" {
			continue
		}
		against, ratio, limit, limitRatio := "", "", "", ""
		if v.Against > 0 {
			against, ratio = figure(v.Against), figure(v.Ratio)
		}
		if v.Limit > 0 {
			limit, limitRatio = with(v.Limit, v.LimitOf), figure(v.LimitRatio)
		}
		verdict := v.Verdict
		if verdict == "not met" {
			verdict = "**not met**"
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s | %s | %s | `%s` |\n", v.What, with(v.Value, v.Unit), against, ratio, v.Budget, verdict, limit, limitRatio, measurementOf(v.Metric))
	}
	return text.String()
}

// measurementOf is the name of the measurement that a metric is of.
func measurementOf(metric string) string {
	name, _, _ := strings.Cut(metric, ".")
	name, _, _ = strings.Cut(name, "-")
	switch name {
	case "grouped":
		return "memory"
	case "terminal":
		return "output"
	case "state":
		return "metrics"
	}
	return name
}

// table is one with a column for each contender that has any of its metrics.
type table struct {
	name    string
	metrics []tableRow
}

type tableRow struct{ metric, what string }

// contenderNames are the columns, in this order.
var contenderNames = []string{cleat, stock, plain, cleat + "+crun", stock + "+crun", "runc", "crun", byHandName, conmonName, floor}

func (r *results) table(t table) string {
	var columns []string
	for _, name := range contenderNames {
		if slices.ContainsFunc(t.metrics, func(m tableRow) bool { return r.get(m.metric, name) != nil }) {
			columns = append(columns, name)
		}
	}
	if len(columns) == 0 {
		return ""
	}
	compared := slices.Contains(columns, cleat) && slices.Contains(columns, stock)
	heads := columns
	if compared {
		heads = append(slices.Clone(columns), "cleat ÷ stock")
	}
	var text strings.Builder
	text.WriteString("| | " + strings.Join(heads, " | ") + " |\n|---|" + strings.Repeat("--:|", len(heads)) + "\n")
	for _, m := range t.metrics {
		if r.Metrics[m.metric] == nil {
			continue
		}
		text.WriteString("| " + m.what + " |")
		for _, name := range columns {
			s := r.get(m.metric, name)
			switch {
			case s == nil:
				text.WriteString(" |")
			case len(s.Samples) < 3:
				fmt.Fprintf(&text, " %s |", figure(s.Median))
			default:
				fmt.Fprintf(&text, " %s (%s–%s) |", figure(s.Median), figure(s.Q1), figure(s.Q3))
			}
		}
		if compared {
			ours, theirs := r.get(m.metric, cleat), r.get(m.metric, stock)
			if ours != nil && theirs != nil && theirs.Median > 0 {
				fmt.Fprintf(&text, " %s", figure(ours.Median/theirs.Median))
			}
			text.WriteString(" |")
		}
		text.WriteString("\n")
	}
	return text.String()
}
