package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/place"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	os.Exit(m.Run())
}

// TestChaos is a short form of `make chaos`: always the same rounds, with each kind
// of fault in one of them.
func TestChaos(t *testing.T) {
	const seed = 20
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for i, faults := range []string{
		"shim,containerd,delay,connection",
		"runtime,logger,upgrade,caller",
		"freeze,disk,reader,stop,upgrade",
	} {
		o, err := parse([]string{"-seed", "20", "-containers", "12", "-faults", faults, "-reports", t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		o.rounds, o.first, o.every = 1, i+1, true
		var text strings.Builder
		all, err := run(ctx, o, &text)
		t.Log(text.String())
		if err != nil {
			t.Fatalf("seed %d, faults %s: %v", seed, faults, err)
		}
		planned := len(draw(seed, i+1, o.containers, o.faults, true).Faults)
		done := 0
		for _, n := range all.Faults {
			done += n
		}
		if done < planned/2 {
			t.Errorf("of %d faults %d were done", planned, done)
		}
		if all.wrong() > 0 {
			report, _ := os.ReadFile(all.Rounds[0].Report)
			t.Errorf("again by: go run ./chaos -seed %d -round %d -rounds 1 -containers 12 -every -faults %s\n%s", seed, i+1, faults, report)
		}
	}
}

// envOptions are options of the command for TestChaosAsAsked.
const envOptions = "CLEAT_TEST_CHAOS"

// TestChaosAsAsked is the command itself, with options from the environment: it
// runs where there is only this test, as in a virtual machine.
func TestChaosAsAsked(t *testing.T) {
	asked := os.Getenv(envOptions)
	if asked == "" {
		t.Skipf("%s holds no options", envOptions)
	}
	o, err := parse(append([]string{"-reports", t.TempDir()}, strings.Fields(asked)...))
	if err != nil {
		t.Fatal(err)
	}
	all, err := run(t.Context(), o, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all.Rounds {
		if report, err := os.ReadFile(r.Report); err == nil {
			t.Errorf("%s", report)
		}
	}
	if all.wrong() > 0 {
		t.Errorf("%d things are wrong", all.wrong())
	}
}
