package main

import (
	"slices"
	"testing"
)

func TestTheSeedDecidesEverything(t *testing.T) {
	if a, b := draw(5, 3, 14, allFaults, false).String(), draw(5, 3, 14, allFaults, false).String(); a != b {
		t.Errorf("twice the same is\n%s\nand\n%s", a, b)
	}
	if a, b := draw(5, 3, 14, allFaults, false).String(), draw(6, 3, 14, allFaults, false).String(); a == b {
		t.Error("another seed gives the same")
	}
	if a, b := draw(5, 3, 14, allFaults, false).String(), draw(5, 4, 14, allFaults, false).String(); a == b {
		t.Error("another round gives the same")
	}
}

// What is drawn must be all that there is, and within its bounds.
func TestPlansHaveEverything(t *testing.T) {
	faults, sinks, endings, moments := map[fault]int{}, map[sinkKind]int{}, map[ending]int{}, map[step]int{}
	for round := range 200 {
		p := draw(1, round, 14, allFaults, false)
		if len(p.Containers) != 14 || p.Containers[0].ID != anchor {
			t.Fatalf("round %d: %s", round, p)
		}
		count := map[fault]int{}
		for _, f := range p.Faults {
			faults[f.Kind]++
			count[f.Kind]++
			moments[f.At]++
			if !slices.Contains(p.Kinds, f.Kind) || p.container(f.Container).ID == "" {
				t.Errorf("round %d: %s is not of the round", round, f)
			}
		}
		if count[killContainerd] > 2 || count[killShim] > 3 {
			t.Errorf("round %d: %v", round, count)
		}
		for _, c := range p.Containers {
			sinks[c.Runs.Sink]++
			endings[c.Ends]++
			if c.Ends == byItself && c.Runs.Stay < 0 {
				t.Errorf("round %d: %s never ends", round, c.ID)
			}
			for _, e := range c.Execs {
				if e.Runs.Stay < 0 {
					t.Errorf("round %d: %s never ends", round, e.ID)
				}
			}
		}
	}
	for _, f := range allFaults {
		if faults[f] == 0 {
			t.Errorf("no %s", f)
		}
	}
	if len(sinks) != 4 || len(endings) != 3 || len(moments) != len(steps) {
		t.Errorf("drawn are %v, %v, %v", sinks, endings, moments)
	}
}
