package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// results is what results.json has.
type results struct {
	Form        string
	Began       time.Time
	Machine     machine
	Interrupted bool              `json:",omitempty"`
	LeftOut     map[string]string `json:",omitempty"` // why, by the name of what
	Metrics     map[string]map[string]*series
	Rows        []verdict

	measured []string // by this run
	whole    bool     // all that was asked for was measured, or is left out

	mu sync.Mutex // guards Metrics and LeftOut
}

// series are the samples of one metric of one contender.
type series struct {
	Median, Q1, Q3 float64
	Samples        []float64
}

func newResults(form string) *results {
	return &results{Form: form, Began: time.Now().UTC().Truncate(time.Second), LeftOut: map[string]string{}, Metrics: map[string]map[string]*series{}}
}

func (r *results) add(metric, contender string, value float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Metrics[metric] == nil {
		r.Metrics[metric] = map[string]*series{}
	}
	s := r.Metrics[metric][contender]
	if s == nil {
		s = &series{}
		r.Metrics[metric][contender] = s
	}
	s.Samples = append(s.Samples, value)
}

// leaveOut notes what is not measured, and tells it.
func (r *results) leaveOut(progress io.Writer, what, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.LeftOut[what] = why
	fmt.Fprintf(progress, "left out: %s: %s\n", what, why)
}

// get is a series, nil if there is none.
func (r *results) get(metric, contender string) *series { return r.Metrics[metric][contender] }

// summarise fills in what follows from the samples.
func (r *results) summarise() {
	for _, of := range r.Metrics {
		for _, s := range of {
			sorted := slices.Sorted(slices.Values(s.Samples))
			s.Median, s.Q1, s.Q3 = quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75)
		}
	}
	r.Rows = nil
	for _, row := range rows {
		r.Rows = append(r.Rows, row.judge(r))
	}
}

// quantile interpolates between the two nearest of sorted samples.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// keep takes what an earlier run of the same form and program has measured, and
// this one, which was asked for some measurements only, has not.
func (r *results) keep(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	old := &results{}
	if json.Unmarshal(text, old) != nil || old.Form != r.Form || !r.Machine.sameProgram(old.Machine) {
		return
	}
	r.Began, r.Machine = old.Began, old.Machine
	for metric, of := range old.Metrics {
		if r.Metrics[metric] == nil {
			r.Metrics[metric] = of
		}
	}
	for what, why := range old.LeftOut {
		if _, ok := r.LeftOut[what]; !ok && !slices.ContainsFunc(r.measured, func(name string) bool { return name == what }) {
			r.LeftOut[what] = why
		}
	}
}

func (r *results) write(path string) error {
	r.summarise()
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// percentile is a quantile of the samples.
func (s *series) percentile(q float64) float64 {
	return quantile(slices.Sorted(slices.Values(s.Samples)), q)
}
