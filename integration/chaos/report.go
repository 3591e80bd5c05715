package main

// What is told of the rounds.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// outcome is what came of all rounds on one runtime.
type outcome struct {
	Runtime    string           `json:"runtime"`
	Rounds     []result         `json:"rounds"`
	Containers int              `json:"containers"`
	Execs      int              `json:"execs"`
	Events     int              `json:"events"`
	Faults     map[fault]int    `json:"faults"`
	Violations map[category]int `json:"violations"`
}

func (o *outcome) add(r result) {
	if o.Faults == nil {
		o.Faults, o.Violations = map[fault]int{}, map[category]int{}
	}
	o.Rounds = append(o.Rounds, r)
	o.Containers += r.Containers
	o.Execs += r.Execs
	o.Events += r.Events
	for kind, n := range r.Done {
		o.Faults[kind] += n
	}
	for _, v := range r.Violations {
		o.Violations[v.Category]++
	}
}

func (o *outcome) wrong() (n int) {
	for _, count := range o.Violations {
		n += count
	}
	return n
}

// print tells of all rounds.
func (o *outcome) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %d rounds, %d containers, %d execs, %d events\n", o.Runtime, len(o.Rounds), o.Containers, o.Execs, o.Events)
	fmt.Fprint(w, "faults:")
	for _, kind := range allFaults {
		if o.Faults[kind] > 0 {
			fmt.Fprintf(w, " %s %d", kind, o.Faults[kind])
		}
	}
	fmt.Fprint(w, "\nwrong:")
	for _, c := range categories {
		fmt.Fprintf(w, " %s %d;", c, o.Violations[c])
	}
	fmt.Fprintln(w)
}

// print tells of one round, in a line, and in as many more as things are wrong.
func (r result) print(w io.Writer) {
	done, missed := 0, 0
	for _, n := range r.Done {
		done += n
	}
	for _, n := range r.Missed {
		missed += n
	}
	fmt.Fprintf(w, "seed %d, round %d: %d containers, %d execs, %d events, %d faults of %v and %d too late, %.1f s: ", r.Seed, r.Round,
		r.Containers, r.Execs, r.Events, done, r.Kinds, missed, r.Seconds)
	if len(r.Violations) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	fmt.Fprintf(w, "%d WRONG (%s)\n", len(r.Violations), r.Report)
	for _, v := range r.Violations {
		first, _, _ := strings.Cut(v.Text, "\n")
		fmt.Fprintf(w, "  %s: %s: %s\n", v.Category, orDash(v.Container), first)
	}
}

func (o *outcome) write(path string) error {
	text, err := json.MarshalIndent(o, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
