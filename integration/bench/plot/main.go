// Command plot draws the figures of results.json, one SVG for each kind, beside it
// or in another folder.
// It has a module of its own, so that what it needs is no part of the tests.
package main

import (
	"encoding/json"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: plot FOLDER-OF-RESULTS.JSON [FOLDER-OF-DRAWINGS]")
		os.Exit(2)
	}
	if err := draw(os.Args[1], os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

// results is what is drawn of results.json.
type results struct {
	Interrupted bool
	Metrics     map[string]map[string]struct{ Median, Q1, Q3 float64 }
}

// figure is one drawing: bars side by side, a group for each metric.
type figure struct {
	file, title, unit string
	bars              []bar
}

// bar is one group. Its limit, if it has one, is a line: a metric of what shows what
// is possible at all. N stands for the largest number of idle containers.
type bar struct{ metric, label, limit, of string }

var figures = []figure{
	{"life.svg", "A task's life", "ms", phases("life")},
	{"parallel.svg", "A task's life, 8 at a time", "ms", phases("parallel")},
	{"cpu.svg", "CPU over a container's life", "ms", []bar{
		{"cpu.start", "start", "floor.cpu", "go"}, {"cpu.daemon", "daemon", "floor.cpu", "go"}, {"cpu.delete", "delete", "floor.cpu", "go"}, {"cpu.runtime", "OCI runtime", "", ""}}},
	{"memory.svg", "Memory of a shim", "KiB", []bar{
		{"memory-N.private", "private", "floor.private", "go"}, {"memory-N.pss", "PSS", "floor.pss", "go"}, {"kernel.memory", "kernel", "", ""}}},
	{"output.svg", "Output", "MB/s", []bar{
		{"output-64k.rate", "64 KiB", "", ""}, {"output-100.rate", "100 bytes", "", ""}, {"terminal.rate", "terminal", "", ""}}},
	{"upgrade.svg", "Pause of an upgrade", "ms", []bar{
		{"upgrade-rest.pause", "at rest", "", ""}, {"upgrade-rest.exec", "… execve", "", ""}, {"upgrade-rest.initialise", "… initialise", "", ""},
		{"upgrade-rest.restore", "… restore", "", ""}, {"upgrade-load.pause", "under load", "", ""}}},
	{"growth.svg", "Calls to a shim with many containers", "ms", []bar{
		{"growth-grouped-1.state", "State, 1", "", ""}, {"growth-grouped-100.state", "100", "", ""}, {"growth-grouped-500.state", "500", "", ""}, {"growth-grouped-1000.state", "1000", "", ""},
		{"growth-grouped-1.stats", "Stats, 1", "", ""}, {"growth-grouped-100.stats", "100", "", ""}, {"growth-grouped-500.stats", "500", "", ""}, {"growth-grouped-1000.stats", "1000", "", ""}}},
	{"metrics.svg", "Statistics", "ms", []bar{
		{"metrics.time", "through containerd", "state.time", "cleat"}, {"metrics.shim", "of the shim", "", ""}, {"metrics.cpu", "CPU", "state.cpu", "cleat"}}},
}

// phases are those of a life. Their limit has bars of its own, runc's.
func phases(metric string) (bars []bar) {
	for _, phase := range []string{"create", "start", "exit", "delete", "total"} {
		bars = append(bars, bar{metric + "." + phase, phase, "", ""})
	}
	return bars
}

type contender struct {
	name  string
	color color.Color
}

// contenders have the same colour in all figures.
var contenders = []contender{
	{"cleat", color.RGBA{0x1f, 0x77, 0xb4, 0xff}},
	{"stock", color.RGBA{0xff, 0x7f, 0x0e, 0xff}},
	{"stock-plain", color.RGBA{0xff, 0xbb, 0x78, 0xff}},
	{"runc", color.RGBA{0x8c, 0x8c, 0x8c, 0xff}},
}

func draw(from, to string) error {
	text, err := os.ReadFile(filepath.Join(from, "results.json"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	var r results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("read the results: %w", err)
	}
	if r.Interrupted {
		fmt.Println("The run was cut short: nothing is drawn.")
		return nil
	}
	for _, f := range figures {
		f.bars = slices.Clone(f.bars)
		for i := range f.bars {
			f.bars[i].metric = r.largest(f.bars[i].metric)
		}
		f.bars = slices.DeleteFunc(f.bars, func(b bar) bool { return r.Metrics[b.metric] == nil })
		if len(f.bars) == 0 {
			continue
		}
		if err := r.draw(f, filepath.Join(to, f.file)); err != nil {
			return fmt.Errorf("draw %s: %w", f.file, err)
		}
		fmt.Println(filepath.Join(to, f.file))
	}
	return nil
}

// largest is a metric whose name has a number for N, the largest that was measured.
func (r results) largest(metric string) string {
	before, after, ok := strings.Cut(metric, "-N.")
	largest := 0
	for name := range r.Metrics {
		var n int
		if _, err := fmt.Sscanf(name, before+"-%d."+after, &n); ok && err == nil && name == fmt.Sprintf("%s-%d.%s", before, n, after) {
			largest = max(largest, n)
		}
	}
	if largest == 0 {
		return metric
	}
	return fmt.Sprintf("%s-%d.%s", before, largest, after)
}

// whiskers are the quartiles of one contender's bars.
type whiskers struct {
	plotter.XYs
	plotter.YErrors
}

func (r results) draw(f figure, path string) error {
	const (
		width = 14   // of a bar, in points
		step  = 0.18 // from one to the next, as a part of a group's place
	)
	p := plot.New()
	p.Title.Text = f.title + " (medians and quartiles)"
	p.Y.Label.Text = f.unit
	p.Y.Min = 0
	p.Legend.Top = true
	var labels []string
	for _, b := range f.bars {
		labels = append(labels, b.label)
	}
	present := slices.DeleteFunc(slices.Clone(contenders), func(c contender) bool {
		return !slices.ContainsFunc(f.bars, func(b bar) bool { _, ok := r.Metrics[b.metric][c.name]; return ok })
	})
	for i, c := range present {
		var medians plotter.Values
		var w whiskers
		aside := (float64(i) - float64(len(present)-1)/2) * step
		for at, b := range f.bars {
			s := r.Metrics[b.metric][c.name]
			medians = append(medians, s.Median)
			w.XYs = append(w.XYs, plotter.XY{X: float64(at) + aside, Y: s.Median})
			w.YErrors = append(w.YErrors, struct{ Low, High float64 }{s.Median - s.Q1, s.Q3 - s.Median})
		}
		bars, err := plotter.NewBarChart(medians, vg.Points(width))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = c.color, 0
		bars.XMin = aside // Offset is in points, whiskers are not
		errors, err := plotter.NewYErrorBars(w)
		if err != nil {
			return err
		}
		p.Add(bars, errors)
		p.Legend.Add(c.name, bars)
	}
	named := false
	for at, b := range f.bars {
		s, ok := r.Metrics[b.limit][b.of]
		if !ok {
			continue
		}
		reach := float64(len(present)) / 2 * step
		line, err := plotter.NewLine(plotter.XYs{{X: float64(at) - reach, Y: s.Median}, {X: float64(at) + reach, Y: s.Median}})
		if err != nil {
			return err
		}
		line.Width, line.Dashes = vg.Points(1.5), []vg.Length{vg.Points(4), vg.Points(2)}
		p.Add(line)
		if !named {
			p.Legend.Add("limit", line)
			named = true
		}
	}
	p.NominalX(labels...)
	p.X.Min, p.X.Max = -0.5, float64(len(labels))-0.5
	return p.Save(vg.Points(float64(140*len(labels)+120)), vg.Points(300), path)
}
