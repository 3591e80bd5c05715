// Command chaos runs containers and execs on a real containerd while it kills
// shims, containerd, OCI runtimes and loggers, drops connections, freezes
// cgroups, fills disks, delays the runtime and replaces the program of running
// shims, and then looks at everything: exit codes, events, output, and what is
// left over. `make chaos` runs it; docs/reliability.md says what it checks.
//
// It ends with status 1 if anything is wrong. Everything follows from the seed,
// which it prints: -seed with -round runs one round again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
)

const (
	ours  = "io.containerd.cleat.v2"
	stock = "io.containerd.runc.v2"
)

// options are the command line.
type options struct {
	seed       uint64
	time       time.Duration
	rounds     int // 0: as many as there is time for
	first      int
	containers int
	every      bool
	runtime    string
	oci        string
	faults     []fault
	json       string
	reports    string
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.Uint64Var(&o.seed, "seed", 0, "the `number` that everything follows from; 0 draws one")
	flags.DurationVar(&o.time, "time", 30*time.Minute, "begin no round after this `time`")
	flags.IntVar(&o.rounds, "rounds", 0, "how `many` rounds, 0 for as many as there is time for")
	flags.IntVar(&o.first, "round", 1, "the `number` of the first round; with -rounds 1 the only one")
	flags.IntVar(&o.containers, "containers", 14, "how `many` containers a round has")
	flags.BoolVar(&o.every, "every", false, "have all kinds of faults in every round; else a few that are drawn")
	flags.StringVar(&o.runtime, "runtime", ours, "containerd's `name` of the runtime; "+stock+" is containerd's own shim")
	flags.StringVar(&o.oci, "oci", "runc", "the `name` of the OCI runtime, runc or crun, or its path")
	faults := flags.String("faults", "", "only these `kinds` of faults, with commas between, or none: "+words(allFaults))
	flags.StringVar(&o.json, "json", "", "write all results to this `file` too")
	flags.StringVar(&o.reports, "reports", "", "write what happened in a round that went wrong to a file in this `folder`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.containers < 2 || o.containers > 100 || o.first < 1 {
		return o, fmt.Errorf("chaos: unexpected arguments: %s", strings.Join(args, " "))
	}
	for _, name := range strings.FieldsFunc(*faults, func(r rune) bool { return r == ',' }) {
		if name == "none" {
			continue
		}
		if !slices.Contains(allFaults, fault(name)) {
			return o, fmt.Errorf("chaos: there is no fault %q, but %s", name, words(allFaults))
		}
		o.faults = append(o.faults, fault(name))
	}
	if *faults == "" {
		o.faults = allFaults
	}
	for o.seed == 0 {
		o.seed = rand.Uint64() >> 40
	}
	return o, nil
}

func words(list []fault) string {
	var text []string
	for _, f := range list {
		text = append(text, string(f))
	}
	return strings.Join(text, ",")
}

func main() {
	place.KeepIfAsked()
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	all, err := run(ctx, o, os.Stdout)
	if err == nil && o.json != "" {
		err = all.write(o.json)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || all.wrong() > 0 {
		stop()
		os.Exit(1)
	}
}

// run plays rounds until the time is over.
func run(ctx context.Context, o options, w io.Writer) (all outcome, err error) {
	here, err := place.New()
	if err != nil {
		return all, err
	}
	defer here.Remove()
	c, err := prepare(ctx, here, o.oci, w)
	if err != nil {
		return all, err
	}
	if o.reports != "" {
		if err := os.MkdirAll(o.reports, 0o755); err != nil {
			return all, err
		}
	}
	all.Runtime = o.runtime
	fmt.Fprintf(w, "chaos on %s and %s with seed %d\n", o.runtime, o.oci, o.seed)
	began := time.Now()
	for n := 0; (o.rounds == 0 || n < o.rounds) && time.Since(began) < o.time; n++ {
		p := draw(o.seed, o.first+n, o.containers, o.faults, o.every)
		if o.runtime == stock {
			// It has no upgrades: nothing happens where the plan has one.
			p.Faults = slices.DeleteFunc(p.Faults, func(f faultPlan) bool { return f.Kind == upgradeShim })
		}
		r, err := play(ctx, c, o.runtime, p, o.reports)
		if err != nil {
			return all, fmt.Errorf("seed %d, round %d: %w", o.seed, p.Round, err)
		}
		all.add(r)
		r.print(w)
	}
	all.print(w)
	return all, nil
}
