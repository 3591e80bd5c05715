package main

// Whole runs in a row: a budget that is met once may have been lucky.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// inARow is how many runs have to meet a budget.
const inARow = 3

// wholeRun is what is kept of a run that has taken all measurements. Nobody chooses
// which count: it is the last ones of the same program, whatever their figures are.
type wholeRun struct {
	Began   time.Time
	Machine machine
	Rows    []verdict
}

// history is what runs.json has: the last whole runs, the latest last, by form.
type history map[string][]wholeRun

func historyPath(out string) string { return filepath.Join(out, "runs.json") }

func readHistory(out string) history {
	h := history{}
	if text, err := os.ReadFile(historyPath(out)); err == nil && json.Unmarshal(text, &h) != nil {
		h = history{} // cut off or of another time: it begins anew
	}
	return h
}

// of is those runs of one form and one program.
func (h history) of(form string, m machine) []wholeRun {
	runs := h[form]
	for _, run := range runs {
		if !m.sameProgram(run.Machine) {
			return nil
		}
	}
	return runs
}

// add counts a run, which must be summarised. One of another program begins anew.
func (h history) add(r *results) {
	runs := append(h.of(r.Form, r.Machine), wholeRun{r.Began, r.Machine, r.Rows})
	h[r.Form] = runs[max(0, len(runs)-inARow):]
}

func (h history) write(out string) error {
	text, err := json.MarshalIndent(h, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(historyPath(out), append(text, '\n'), 0o644)
}

// inAll is a budget over several runs.
type inAll struct {
	verdict // of the last run
	values  []string
	met     int
}

// overRuns says of each budget in how many runs it was met.
func overRuns(runs []wholeRun) (list []inAll) {
	if len(runs) == 0 {
		return nil
	}
	for _, last := range runs[len(runs)-1].Rows {
		all := inAll{verdict: last}
		for _, run := range runs {
			value := "not measured"
			for _, v := range run.Rows {
				if v.Metric != last.Metric || v.Verdict == "not measured" {
					continue
				}
				value = with(v.Value, v.Unit)
				if v.Compared {
					value += fmt.Sprintf(" (%s ×)", figure(v.Ratio))
				}
				switch v.Verdict {
				case "met":
					all.met++
				case "not met":
					value = "**" + value + "**"
				}
			}
			all.values = append(all.values, value)
		}
		list = append(list, all)
	}
	return list
}

// runsTable shows them side by side.
func runsTable(runs []wholeRun) string {
	if len(runs) == 0 {
		return ""
	}
	var text strings.Builder
	text.WriteString("| what | budget |")
	for i, run := range runs {
		fmt.Fprintf(&text, " run %d: %s, load %s |", i+1, run.Began.Format("2006-01-02 15:04"), run.Machine.Load)
	}
	fmt.Fprintf(&text, " met in all %d |\n|---|--:|%s---|\n", len(runs), strings.Repeat("--:|", len(runs)))
	for _, all := range overRuns(runs) {
		met := "met"
		if all.met < len(runs) {
			met = fmt.Sprintf("**not met**, in %d of %d", all.met, len(runs))
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", all.What, all.Budget, strings.Join(all.values, " | "), met)
	}
	return text.String()
}

// printRuns says it in one line, and what is not met.
func printRuns(w io.Writer, runs []wholeRun) {
	if len(runs) < 2 {
		return
	}
	list := overRuns(runs)
	met := 0
	for _, all := range list {
		if all.met == len(runs) {
			met++
			continue
		}
		fmt.Fprintf(w, "not in all runs: %s: %s, budget %s\n", all.What, strings.ReplaceAll(strings.Join(all.values, ", "), "**", ""), all.Budget)
	}
	fmt.Fprintf(w, "In all of the last %d whole runs of this program %d of %d budgets are met.\n", len(runs), met, len(list))
}
