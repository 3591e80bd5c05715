package vm

import (
	"fmt"
	"strings"
	"testing"
)

// A test's children are found by name, also where names have slashes of their
// own; output is the test's that wrote it; a test without an end is told last.
func TestResultsFromEvents(t *testing.T) {
	const events = `
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/one/two"}
{"Action":"run","Test":"TestA/one/two/three"}
{"Action":"output","Test":"TestA/one/two/three","Output":"    a_test.go:1: bad\n"}
{"Action":"output","Test":"TestA/one/two/three","Output":"        --- FAIL: TestA/one/two/three (0.10s)\n"}
{"Action":"fail","Test":"TestA/one/two/three","Elapsed":0.1}
{"Action":"fail","Test":"TestA/one/two","Elapsed":0.2}
{"Action":"fail","Test":"TestA","Elapsed":0.3}
{"Action":"run","Test":"TestB"}
{"Action":"skip","Test":"TestB","Elapsed":0}
{"Action":"run","Test":"TestC"}
{"Action":"output","Output":"panic: test timed out\n"}
{"Action":"fail"}
`
	var told []string
	var r results
	if err := r.read(strings.NewReader(events), func(test *result) { told = append(told, outline(test)) }); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`FAIL TestA 0.3 "" [FAIL one/two 0.2 "" [FAIL three 0.1 "    a_test.go:1: bad\n" []]]`,
		`skip TestB 0.0 "" []`,
		`FAIL TestC 0.0 "" []`,
	}
	if got, want := strings.Join(told, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	if got := r.outside.String(); got != "panic: test timed out\n" {
		t.Errorf("output of no test: %q", got)
	}
}

func outline(r *result) string {
	var children []string
	for _, child := range r.children {
		children = append(children, outline(child))
	}
	return fmt.Sprintf("%s %s %.1f %q %v", r.word(), r.name, r.elapsed, r.output.String(), children)
}
