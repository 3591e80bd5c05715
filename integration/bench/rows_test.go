package main

import (
	"context"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/integration/tools"
)

// A promise is judged by the median or a percentile, by itself or as a ratio, and
// not at all where something is missing.
func TestPromisesAreJudged(t *testing.T) {
	r := newResults("full")
	for _, v := range []float64{1, 2, 3, 4, 100} {
		r.add("x.ms", cleat, v)
		r.add("x.ms", stock, 2*v)
		r.add("alone.ms", cleat, v)
	}
	r.add("x.ms", "runc", 1)
	r.summarise()
	if s := r.get("x.ms", cleat); s.Median != 3 || s.Q1 != 2 || s.Q3 != 4 {
		t.Errorf("series %+v", s)
	}
	for _, c := range []struct {
		row     row
		verdict string
	}{
		{row{metric: "x.ms", most: 3}, "met"},
		{row{metric: "x.ms", most: 2.9}, "not met"},
		{row{metric: "x.ms", most: 50, percentile: 0.99}, "not met"},
		{row{metric: "x.ms", against: stock, most: 0.5}, "met"},
		{row{metric: "x.ms", against: stock, most: 0.4}, "not met"},
		{row{metric: "x.ms", against: stock, least: 0.5}, "met"},
		{row{metric: "x.ms", against: stock, least: 0.6}, "not met"},
		{row{metric: "x.ms", most: 0}, "not met"},
		{row{metric: "alone.ms", against: stock, most: 1}, "not measured"},
		{row{metric: "none.ms", most: 1}, "not measured"},
	} {
		if v := c.row.judge(r); v.Verdict != c.verdict {
			t.Errorf("%+v: %+v", c.row, v)
		}
	}
	if v := (row{metric: "x.ms", most: 3, limit: "runc"}).judge(r); v.LimitRatio != 3 || v.Ratio != 0.5 {
		t.Errorf("ratios: %+v", v)
	}
}

// A part of the measurements leaves what earlier ones have measured of the same
// program, and only that: its release is another one as soon as a document is written.
func TestPartsAddUpAsLongAsTheProgramIsTheSame(t *testing.T) {
	made := func(release, program, metric string) *results {
		r := newResults("full")
		r.Machine.Shim, r.Machine.Program = release, program
		r.add(metric, cleat, 1)
		return r
	}
	for _, c := range []struct {
		program string // of the earlier part
		kept    bool
	}{{"a", true}, {"b", false}, {"", false}} {
		path := filepath.Join(t.TempDir(), "results.json")
		if err := made("v1", c.program, "first.ms").write(path); err != nil {
			t.Fatal(err)
		}
		second := made("v1-dirty", "a", "second.ms")
		second.keep(path)
		if got := second.get("first.ms", cleat) != nil; got != c.kept || second.get("second.ms", cleat) == nil {
			t.Errorf("after a part of %q: kept is %v, %v", c.program, got, second.Metrics)
		}
	}
	unknown := made("v1", "", "second.ms")
	if unknown.Machine.sameProgram(unknown.Machine) {
		t.Error("two unknown programs are taken for the same")
	}
}

// What tells programs apart has no version in it.
func TestProgramIsKnownWithoutItsVersion(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	programs, err := tools.Ensure(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	path, err := programs.Unstamped(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(tools.EnvBuilt) != "" {
		return
	}
	said, err := exec.CommandContext(ctx, path, "-v").CombinedOutput()
	if err != nil || !strings.Contains(string(said), "Version:  (devel)\n") {
		t.Errorf("%q, %v", said, err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "vcs") {
			t.Errorf("it has %s", s)
		}
	}
}

func TestTablesGoBetweenTheirMarkers(t *testing.T) {
	const text = "before\n<!-- bench: a -->\nold\n<!-- end -->\nafter\n"
	got, err := between([]byte(text), "a", "new\n")
	if want := "before\n<!-- bench: a -->\n\nnew\n\n<!-- end -->\nafter\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, broken := range []string{"no marker", "<!-- bench: a -->\nno end"} {
		if _, err := between([]byte(broken), "a", "new"); err == nil {
			t.Errorf("%q: no error", broken)
		}
	}
}

// What the plots are drawn of is what a full run measures and the document's tables
// have. The program that draws is a module of its own, so its text is read.
func TestPlotsAreDrawnOfWhatIsMeasured(t *testing.T) {
	text, err := os.ReadFile("plot/main.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, table := range tables {
		for _, row := range table.metrics {
			known[row.metric] = true
		}
	}
	drawn := regexp.MustCompile(`"([a-z0-9-]+(?:-N)?\.[a-z0-9-]+)"`).FindAllStringSubmatch(string(text), -1)
	for _, found := range drawn {
		metric := row{metric: found[1]}.in("full").metric
		if !known[metric] && !strings.HasSuffix(metric, ".svg") && !strings.HasSuffix(metric, ".json") {
			t.Errorf("%s is in no table", metric)
		}
	}
	if len(drawn) < 30 {
		t.Errorf("only %d metrics are found in the text of the plots", len(drawn))
	}
}

// What is said to measure a promise is there.
func TestEveryPromiseNamesAMeasurement(t *testing.T) {
	for _, row := range rows {
		name := measurementOf(row.in("full").metric)
		found := false
		for _, m := range measurements {
			found = found || m.name == name
		}
		if !found {
			t.Errorf("%s: %q is no measurement", row.what, name)
		}
	}
	if strings.Contains(rows[0].in("quick").metric, "N") {
		t.Errorf("metric of the quick form: %s", rows[0].in("quick").metric)
	}
}
