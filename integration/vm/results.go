package vm

// From the output of a test binary in a machine to tests of this one.

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

// event is what `go tool test2json` writes for each thing that happens.
type event struct {
	Action  string // run, pause, cont, output, pass, fail, skip
	Test    string // "" for the whole binary
	Output  string
	Elapsed float64 // seconds
}

// result is a test of the machine.
type result struct {
	name     string // below its parent
	outcome  string // pass, fail, skip; "" as long as it runs
	elapsed  float64
	output   strings.Builder
	children []*result
}

// results collects events into tests.
type results struct {
	tests   map[string]*result // by full name
	top     []*result
	outside strings.Builder // output that belongs to no test
}

// read takes events until there are no more and calls ended for each test on
// the top level that has ended. Those that never end are given last.
func (r *results) read(events io.Reader, ended func(*result)) error {
	r.tests = map[string]*result{}
	in := json.NewDecoder(events)
	for {
		var e event
		if err := in.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("read test results: %w", err)
		}
		if test := r.add(e); test != nil {
			ended(test)
		}
	}
	for _, test := range r.top {
		if test.outcome == "" {
			ended(test)
		}
	}
	return nil
}

// add takes one event and returns the test on the top level that it ends.
func (r *results) add(e event) *result {
	if e.Test == "" {
		r.outside.WriteString(e.Output)
		return nil
	}
	test := r.find(e.Test)
	switch e.Action {
	case "output":
		if !framing(e.Output) {
			test.output.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		test.outcome, test.elapsed = e.Action, e.Elapsed
		if test.name == e.Test {
			return test
		}
	}
	return nil
}

// framing says whether a line is one that package testing writes about tests
// rather than one that a test wrote.
func framing(line string) bool {
	return strings.HasPrefix(line, "=== ") || strings.HasPrefix(strings.TrimLeft(line, " "), "--- ")
}

// find gives the test with a full name. Its parent is the test with the
// longest name that leads to it: names may have slashes of their own.
func (r *results) find(full string) *result {
	if test := r.tests[full]; test != nil {
		return test
	}
	test := &result{name: full}
	r.tests[full] = test
	for cut := strings.LastIndexByte(full, '/'); cut > 0; cut = strings.LastIndexByte(full[:cut], '/') {
		if parent := r.tests[full[:cut]]; parent != nil {
			test.name = full[cut+1:]
			parent.children = append(parent.children, test)
			return test
		}
	}
	r.top = append(r.top, test)
	return test
}

// replay is the test as one of this machine.
func (r *result) replay(t *testing.T) {
	io.WriteString(t.Output(), r.output.String())
	for _, child := range r.children {
		t.Run(child.name, child.replay)
	}
	switch r.outcome {
	case "pass":
	case "skip":
		t.SkipNow()
	case "fail":
		t.Fail() // the output says why
	default:
		t.Error("the test did not end")
	}
}

// Outcomes in the words of go test.
const passed, failed, skipped = "ok  ", "FAIL", "skip"

func (r *result) word() string {
	switch r.outcome {
	case "pass":
		return passed
	case "skip":
		return skipped
	default:
		return failed
	}
}
