package main

// What a Go test binary prints with -test.v=test2json, as results.

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// outcome is how a test ended.
type outcome string

const (
	passed  outcome = "ok"
	failed  outcome = "FAIL"
	skipped outcome = "skip"
	hung    outcome = "HANG" // was running when nothing had happened for too long
	crashed outcome = "DIED" // was running when the suite ended all at once
	absent  outcome = "-"    // did not begin
)

// result is one test's, or subtest's, in one round.
type result struct {
	Outcome outcome `json:"outcome"`
	Seconds float64 `json:"seconds,omitempty"`
	Output  string  `json:"output,omitempty"` // empty if it passed
}

// stream collects results. It is not safe for concurrent use.
type stream struct {
	results map[string]result // of those that have ended, by name
	active  map[string]bool   // of those that have begun: false if they wait for others
	output  map[string]*strings.Builder
	current string // whose output comes
	happens func(name string, r result)
}

// newStream makes a stream that tells happens of every event: of a test that
// has begun, with an empty result, and of one that has ended.
func newStream(happens func(name string, r result)) *stream {
	return &stream{
		results: map[string]result{},
		active:  map[string]bool{},
		output:  map[string]*strings.Builder{},
		happens: happens,
	}
}

// marker begins what the test framework prints, so that a test's own output
// cannot be taken for it.
const marker = "\x16"

// maxOutput bounds what is kept of a test's output.
const maxOutput = 64 << 10

// read takes everything up to the end of r.
func (s *stream) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		// A test that writes half a line and then ends puts both in one.
		own, event, marked := strings.Cut(line, marker)
		if strings.TrimSpace(own) != "" {
			s.keep(own)
		}
		if marked {
			s.take(strings.TrimRight(event, "\n"))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// keep adds to the output of the test that is current.
func (s *stream) keep(text string) {
	if out := s.output[s.current]; out != nil && out.Len() < maxOutput {
		out.WriteString(text)
	}
}

// take handles a line such as "=== RUN   TestX" or "--- PASS: TestX (0.1s)".
func (s *stream) take(event string) {
	fields := strings.Fields(event)
	if len(fields) < 3 {
		return
	}
	verb, name := fields[1], fields[2]
	switch {
	case fields[0] == "===" && (verb == "RUN" || verb == "CONT"):
		if s.output[name] == nil {
			s.output[name] = &strings.Builder{}
		}
		s.active[name], s.current = true, name
		s.happens(name, result{})
	case fields[0] == "===" && verb == "PAUSE":
		s.active[name] = false
	case fields[0] == "===" && verb == "NAME":
		s.current = name
	case fields[0] == "---":
		s.end(name, strings.TrimSuffix(verb, ":"), fields[3:])
	}
}

func (s *stream) end(name, verb string, took []string) {
	outcomes := map[string]outcome{"PASS": passed, "FAIL": failed, "SKIP": skipped}
	r := result{Outcome: outcomes[verb]}
	if r.Outcome == "" {
		return
	}
	if len(took) > 0 {
		r.Seconds, _ = strconv.ParseFloat(strings.Trim(took[0], "(s)"), 64)
	}
	if r.Outcome != passed && s.output[name] != nil {
		r.Output = strings.TrimSpace(s.output[name].String())
	}
	s.results[name] = r
	delete(s.active, name)
	delete(s.output, name)
	// What follows belongs to whoever is named next, or to the parent.
	s.current = name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		s.current = name[:i]
	}
	s.happens(name, r)
}

// cut gives those that still run the outcome o, after the suite has ended
// before them. Those that wait for their turn have none: they can run again.
func (s *stream) cut(o outcome) {
	for name, running := range s.active {
		if running {
			s.results[name] = result{Outcome: o, Output: strings.TrimSpace(s.output[name].String())}
		}
	}
	clear(s.active)
}
