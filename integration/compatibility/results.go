package main

// What `go test -json` says (go doc test2json), as results.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// result is that of one test.
type result struct {
	Outcome string // pass, fail or skip; "" if it did not end
	Output  string
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
			case "output":
				known.Output += event.Output
			case "pass", "fail", "skip":
				known.Outcome = event.Action
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

// reason is what a test says first that did not pass, without the place in the
// program where it says so.
func (r result) reason() string {
	for line := range strings.Lines(r.Output) {
		_, after, ok := strings.Cut(strings.TrimSpace(line), "_test.go:")
		if !ok {
			continue
		}
		if _, said, ok := strings.Cut(after, ": "); ok {
			return said
		}
	}
	return "it says nothing"
}
