package main

// The budgets: what is promised of the figures.

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is one promise. N in what it says stands for the largest number of idle
// containers of the form. Most and least are of the ratio to what it is compared with,
// or of the figure itself if it is not compared.
type row struct {
	what, unit  string
	metric      string // of cleat
	against     string // a contender, "" for none
	most, least float64
	percentile  float64 // 0 for the median
	limit       string  // contender that shows what is possible at all, in metric or in limitMetric
	limitMetric string
	limitName   string // of what is possible, if it is not the contender
}

// Milliseconds of CPU are promised for a machine on which stock's shim takes 18.2,
// 4.2 and 8.0 of them: the same machine is a quarter slower an hour later.
var rows = []row{
	{what: "private memory of a shim, N idle containers", unit: "KiB", metric: "memory-N.private", most: 1229, limit: floor, limitMetric: "floor.private"},
	{what: "RSS of a shim, N idle containers", unit: "KiB", metric: "memory-N.rss", most: 6144, limit: floor, limitMetric: "floor.rss"},
	{what: "PSS of a shim, N idle containers", unit: "KiB", metric: "memory-N.pss", most: 1536, limit: floor, limitMetric: "floor.pss"},
	{what: "each further container in one shim, N idle", unit: "KiB", metric: "grouped-N.each", most: 30},
	{what: "kernel memory of a shim", unit: "KiB", metric: "kernel.memory", most: 220},
	{what: "threads of a shim", unit: "", metric: "memory-N.threads", most: 5, limit: floor, limitMetric: "floor.threads"},
	{what: "CPU of the daemon over a container's life", unit: "ms", metric: "cpu.daemon", against: stock, most: 6 / 18.2, limit: floor, limitMetric: "floor.cpu"},
	{what: "CPU of `start`", unit: "ms", metric: "cpu.start", against: stock, most: 2.2 / 4.2, limit: floor, limitMetric: "floor.cpu"},
	{what: "CPU of `delete` with what it runs", unit: "ms", metric: "cpu.delete", against: stock, most: 2.2 / 8.0, limit: floor, limitMetric: "floor.cpu"},
	{what: "task create → delete, one after the other", unit: "ms", metric: "life.total", against: stock, most: 0.60, limit: "runc"},
	{what: "task create → delete, 8 at a time", unit: "ms", metric: "parallel.total", against: stock, most: 0.50, limit: "runc"},
	{what: "output, writes of 64 KiB", unit: "MB/s", metric: "output-64k.rate", against: stock, least: 2.4, limit: "runc"},
	{what: "CPU of the shim per GiB of output, writes of 64 KiB", unit: "s", metric: "output-64k.cpu", most: 0.005},
	{what: "Metrics, through containerd", unit: "ms", metric: "metrics.time", against: stock, most: 0.4, limit: cleat, limitMetric: "state.time", limitName: "State"},
	{what: "CPU of the shim for Metrics", unit: "ms", metric: "metrics.cpu", against: stock, most: 0.15, limit: cleat, limitMetric: "state.cpu", limitName: "State"},
	{what: "programs run for a Kill", unit: "", metric: "kill.spawned", most: 0},
	{what: "wake-ups a minute, idle", unit: "", metric: "idle.wakeups", most: 2},
	{what: "size of the shim", unit: "MB", metric: "size.shim", most: 6, limit: floor, limitMetric: "floor.size"},
	{what: "pause of an upgrade at rest, median", unit: "ms", metric: "upgrade-rest.pause", most: 5},
	{what: "pause of an upgrade under load, 99th percentile", unit: "ms", metric: "upgrade-load.pause", most: 25, percentile: 0.99},
}

// verdict is what became of a promise.
type verdict struct {
	What, Unit, Metric, Budget string
	Value                      float64
	Against                    float64 `json:",omitempty"` // the figure of what it is compared with
	Ratio                      float64 `json:",omitempty"` // to Against
	Compared                   bool    `json:",omitempty"` // it is the ratio that is promised
	Limit, LimitRatio          float64 `json:",omitempty"` // what is possible, and the ratio to it
	LimitOf                    string  `json:",omitempty"`
	Verdict                    string  // met, not met, or not measured
}

// in is the row for a form.
func (w row) in(form string) row {
	n := fmt.Sprint(slices.Max(forms[form].idle))
	w.what = strings.Replace(w.what, ", N idle", ", "+n+" idle", 1)
	w.metric = strings.Replace(w.metric, "-N.", "-"+n+".", 1)
	return w
}

func (w row) judge(r *results) verdict {
	w = w.in(r.Form)
	v := verdict{What: w.what, Unit: w.unit, Metric: w.metric, Budget: w.budget(), Compared: w.against != "", Verdict: "not measured"}
	ours := r.get(w.metric, cleat)
	if ours == nil {
		return v
	}
	v.Value = ours.Median
	if w.percentile > 0 {
		v.Value = ours.percentile(w.percentile)
	}
	judged := v.Value
	if theirs := r.get(w.metric, stock); theirs != nil && theirs.Median > 0 {
		v.Against = theirs.Median
		v.Ratio = v.Value / v.Against
	}
	if w.against != "" {
		if v.Against == 0 {
			return v
		}
		judged = v.Ratio
	}
	metric := w.metric
	if w.limitMetric != "" {
		metric = w.limitMetric
	}
	if least := r.get(metric, w.limit); least != nil && least.Median > 0 {
		v.Limit = least.Median
		v.LimitRatio = v.Value / v.Limit
		v.LimitOf = cmp.Or(w.limitName, w.limit)
	}
	if r.Form == "tiny" { // too few samples
		v.Verdict = "not judged"
		return v
	}
	v.Verdict = "met"
	if w.least > 0 && judged < w.least || w.least == 0 && judged > w.most {
		v.Verdict = "not met"
	}
	return v
}

func (w row) budget() string {
	of := w.unit
	if w.against != "" {
		of = "× " + w.against
	}
	if w.least > 0 {
		return "≥ " + with(w.least, of)
	}
	return "≤ " + with(w.most, of)
}

// with is a figure with its unit, if it has one.
func with(x float64, unit string) string { return strings.TrimSpace(figure(x) + " " + unit) }

// print shows every promise, one a line.
func (r *results) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tcleat\tstock\tratio\tbudget\t")
	for _, v := range r.Rows {
		if v.Verdict == "not measured" {
			continue
		}
		against, ratio := "", ""
		if v.Against > 0 {
			against, ratio = figure(v.Against), figure(v.Ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", v.What, with(v.Value, v.Unit), against, ratio, v.Budget, v.Verdict)
	}
	t.Flush()
	for _, what := range slices.Sorted(maps.Keys(r.LeftOut)) {
		fmt.Fprintf(w, "left out: %s: %s\n", what, r.LeftOut[what])
	}
	if r.Form != "full" {
		fmt.Fprintf(w, "This is the %s form: fewer samples of fewer containers in shorter windows.\n", r.Form)
	}
}

// figure shows a number with three digits that count.
func figure(x float64) string {
	switch {
	case x == 0:
		return "0"
	case x >= 100 || x <= -100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10 || x <= -10:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.01 || x <= -0.01:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.4f", x)
}
