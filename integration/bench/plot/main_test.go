package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// whole are results that have everything that is drawn.
func whole() map[string]map[string]map[string]float64 {
	metrics := map[string]map[string]map[string]float64{}
	add := func(metric, of string) {
		if metrics[metric] == nil {
			metrics[metric] = map[string]map[string]float64{}
		}
		metrics[metric][of] = map[string]float64{"Median": 2, "Q1": 1, "Q3": 3}
	}
	for _, f := range figures {
		for _, b := range f.bars {
			for _, n := range []string{"-1.", "-20.", "-100."} {
				add(strings.Replace(b.metric, "-N.", n, 1), "cleat")
			}
			if b.limit != "" {
				add(b.limit, b.of)
			}
		}
	}
	return metrics
}

func drawn(t *testing.T, content any) (files []string, dir string) {
	t.Helper()
	from := t.TempDir()
	dir = t.TempDir()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "results.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := draw(from, dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		files = append(files, e.Name())
	}
	return files, dir
}

// A whole run draws every plot that the document shows, with the limits that it has.
func TestEveryPlotOfTheDocumentIsDrawn(t *testing.T) {
	text, err := os.ReadFile("../../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, found := range regexp.MustCompile(`\(performance/([^)]+)\)`).FindAllSubmatch(text, -1) {
		shown[string(found[1])] = true
	}
	files, dir := drawn(t, map[string]any{"Metrics": whole()})
	if want := slices.Sorted(maps.Keys(shown)); len(want) == 0 || !slices.Equal(files, want) {
		t.Errorf("drawn: %v, the document shows %v", files, want)
	}
	for _, f := range figures {
		text, err := os.ReadFile(filepath.Join(dir, f.file))
		if err != nil {
			t.Fatal(err)
		}
		has := slices.ContainsFunc(f.bars, func(b bar) bool { return b.limit != "" })
		if got := strings.Contains(string(text), ">limit<"); got != has {
			t.Errorf("%s: a limit is drawn: %v", f.file, got)
		}
		for _, b := range f.bars {
			if !strings.Contains(string(text), ">"+b.label+"<") {
				t.Errorf("%s: %s is not drawn", f.file, b.label)
			}
		}
	}
}

// What was not measured leaves the plot that there is as it is; so does a run that was
// cut short, for what it has of a metric may be one sample.
func TestWhatIsNotMeasuredIsNotDrawn(t *testing.T) {
	metrics := whole()
	if files, _ := drawn(t, map[string]any{"Metrics": metrics, "Interrupted": true}); len(files) > 0 {
		t.Errorf("of a run that was cut short: %v", files)
	}
	for name := range metrics {
		if !strings.HasPrefix(name, "memory-") {
			delete(metrics, name)
		}
	}
	if files, _ := drawn(t, map[string]any{"Metrics": metrics}); !slices.Equal(files, []string{"memory.svg"}) {
		t.Errorf("of a part: %v", files)
	}
	r := results{Metrics: map[string]map[string]struct{ Median, Q1, Q3 float64 }{"memory-1.pss": nil, "memory-20.pss": nil, "memory-3.pss": nil, "memory-100.private": nil, "memory-7.pss.not": nil}}
	if got := r.largest("memory-N.pss"); got != "memory-20.pss" {
		t.Errorf("the largest number of containers: %s", got)
	}
}
