package main

// What `go test -json` says (go doc test2json), as results.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/cleatrun/cleat/integration/tools"
)

// result is that of one test.
type result struct {
	Outcome string // pass, fail or skip; "" if it did not end
	Output  string
	Runs    int
	Failed  int // of these; one is enough for Outcome

	// Beside is what the same test gave with the shim that belongs to the release
	// of containerd, as often, in the same run of this program. It is nil where
	// that was not tried.
	Beside *result
}

// results are by folder and name of the test: "./cri TestStats". Under the folder
// alone there is what belongs to no test.
type results map[string]result

// read takes all events of one folder's tests. count is how many tests have ended,
// failed how many of them without success.
func (r results) read(folder string, from io.Reader) (count, failed int, err error) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var event struct{ Action, Test, Output string }
			if err := json.Unmarshal(line, &event); err != nil {
				return count, failed, fmt.Errorf("read what go test says of %s: %w: %s", folder, err, line)
			}
			key := strings.TrimSpace(folder + " " + event.Test)
			known := r[key]
			switch event.Action {
			case "run":
				if known.Outcome != "fail" && !known.sometimes() {
					known.Output, known.Outcome = "", ""
				}
			case "output":
				known.Output += event.Output
			case "pass", "fail", "skip":
				known.Runs++
				if event.Action == "fail" {
					known.Failed++
				}
				switch {
				case known.Failed > 0:
					known.Outcome = "fail"
				case known.Outcome == "": // else it is as it once was
					known.Outcome = event.Action
				}
				if event.Test != "" {
					count++
				}
				if event.Test != "" && event.Action == "fail" {
					failed++
				}
			}
			r[key] = known
		}
		if err == io.EOF {
			return count, failed, nil
		}
		if err != nil {
			return count, failed, err
		}
	}
}

// of is what a test of a room has given, with what the same gave with the shim of
// that containerd.
func (r results) of(in room, test string) result {
	found := r[in.about()+" "+test]
	if in.release.Name != "" && !in.own {
		if beside, ok := r[in.withOwn().about()+" "+test]; ok && beside.Outcome != "" {
			found.Beside = &beside
		}
	}
	return found
}

// reason is what a test says first that did not pass, without the place in the
// program where it says so.
func (r result) reason() string {
	for line := range strings.Lines(r.Output) {
		_, after, ok := strings.Cut(strings.TrimSpace(line), "_test.go:")
		if !ok {
			continue
		}
		if _, said, ok := strings.Cut(after, ": "); ok {
			return strings.TrimSpace(said)
		}
	}
	return "it says nothing"
}

// worse says whether a test gives less than it should: with containerd's own shim,
// where that was tried, or else that it passes. What fails now and then may do so
// somewhat more often by chance: up to twice.
func (r result) worse() bool {
	switch {
	case r.Outcome == "":
		return true
	case r.Beside == nil:
		return r.Outcome == "fail"
	case r.Outcome == "fail":
		return r.Failed > 2*r.Beside.Failed
	}
	return r.Outcome == "skip" && r.Beside.Outcome == "pass" && !r.sometimes()
}

// sometimes says whether the test has seen containerd itself not do what it does at
// other times.
func (r result) sometimes() bool {
	return r.Outcome == "skip" && strings.HasPrefix(r.reason(), tools.Sometimes)
}

// failure is the reason of a test that has failed, and how often it does.
func (r result) failure() string {
	text := r.reason()
	if r.Runs > 1 {
		text += fmt.Sprintf(" (in %d of %d runs)", r.Failed, r.Runs)
	}
	if r.Beside != nil {
		text += fmt.Sprintf("; with the shim of that containerd it fails in %d of %d runs", r.Beside.Failed, r.Beside.Runs)
	}
	return text
}
