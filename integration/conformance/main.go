// Command conformance runs containerd's own client integration tests, those
// about tasks, containers, exec, IO, checkpoint, shims, restart and OOM, on
// the stock shim, on cleat, and on cleat installed in the place of the stock
// shim, and prints the results side by side. `make conformance` runs it.
//
// It ends with status 1 if a test that passes on stock does not pass on cleat.
//
// The tests are compiled unchanged from containerd's module. Every run of them
// is in a cell of its own (package cell), starts its own containerd there and
// pulls its images from there, so nothing is downloaded and nothing stays.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/conformance/cell"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// options are the command line.
type options struct {
	run     *regexp.Regexp
	on      []string
	rounds  int
	json    string
	list    bool
	quiet   time.Duration
	timeout time.Duration
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	run := flags.String("run", "", "only the tests whose names match this regular `expression`")
	on := flags.String("on", "stock,cleat,drop-in", "what to run them on")
	flags.IntVar(&o.rounds, "count", 1, "how many `times` each")
	flags.StringVar(&o.json, "json", "", "write all results to this `file` too")
	flags.BoolVar(&o.list, "list", false, "print the names of the tests and do nothing")
	flags.DurationVar(&o.quiet, "quiet", 150*time.Second, "give up a test after this `time` in which no test began or ended")
	flags.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up altogether if one round takes longer than this `time`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.rounds < 1 {
		return o, fmt.Errorf("conformance: unexpected arguments: %s", strings.Join(args, " "))
	}
	var err error
	if o.run, err = regexp.Compile(*run); err != nil {
		return o, err
	}
	o.on = strings.Split(*on, ",")
	for _, name := range o.on {
		if !slices.ContainsFunc(candidates, func(c candidate) bool { return c.name == name }) {
			return o, fmt.Errorf("conformance: -on %s: there is no %q", *on, name)
		}
	}
	return o, nil
}

func main() {
	place.KeepIfAsked()
	cell.EnterIfAsked()
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
	ok, err := conform(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// conform does it all and says whether cleat passes what stock passes.
func conform(ctx context.Context, o options) (bool, error) {
	t, err := tools.Ensure(ctx, os.Stderr)
	if err != nil {
		return false, err
	}
	s, err := prepare(ctx, t, os.Stderr)
	if err != nil {
		return false, err
	}
	names := slices.DeleteFunc(s.aboutShims(), func(name string) bool { return !o.run.MatchString(name) })
	if len(names) == 0 {
		return false, fmt.Errorf("no test matches %q", o.run)
	}
	if o.list {
		fmt.Println(strings.Join(names, "\n"))
		return true, nil
	}
	here, err := place.New()
	if err != nil {
		return false, err
	}
	defer here.Remove()
	frozen, err := freeze(here.Path("shim"), t.Shim)
	if err != nil {
		return false, err
	}
	folders := []string{frozen, s.dir, t.Dir}
	if borrowed, err := tools.EnsureBorrowed(ctx, os.Stderr); err != nil {
		// They cost some tests, which then say what they lack.
		fmt.Fprintln(os.Stderr, "conformance: go on without:", err)
	} else {
		folders = append(folders, borrowed)
	}
	logs := filepath.Join(s.dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return false, err
	}
	r := &runner{folders: folders, busybox: filepath.Base(t.Busybox), logs: logs, quiet: o.quiet, limit: o.timeout, progress: os.Stderr}

	answer := &report{Containerd: s.Version, Kernel: kernel(), Cgroups: cgroups()}
	rounds, err := r.all(ctx, o, names, answer)
	if err != nil {
		return false, err
	}
	answer.Tests = collect(answer.Columns, rounds)
	answer.print(os.Stdout)
	if o.json != "" {
		text, err := json.MarshalIndent(answer, "", "\t")
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return false, err
		}
	}
	return len(answer.worse()) == 0, nil
}

// freeze copies the shim into the folder dir, which it makes, so that all
// rounds test the same one even if it is built again meanwhile.
func freeze(dir, shim string) (string, error) {
	program, err := os.ReadFile(shim)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, filepath.Base(shim)), program, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("copy the shim: %w", err)
	}
	return dir, nil
}

// all runs all rounds. The candidates take turns, so that a change of the
// machine's mood meets all of them.
func (r *runner) all(ctx context.Context, o options, names []string, answer *report) ([][]round, error) {
	var used []candidate
	for _, c := range candidates {
		if slices.Contains(o.on, c.name) {
			used = append(used, c)
			answer.Columns = append(answer.Columns, c.name)
		}
	}
	rounds := make([][]round, len(used))
	answer.Rounds = make([][]round, len(used))
	for number := range o.rounds {
		for i, c := range used {
			one, err := r.round(ctx, c, number+1, names)
			if err != nil {
				return nil, err
			}
			rounds[i] = append(rounds[i], one)
			one.Results = nil // they are by test in the answer
			answer.Rounds[i] = append(answer.Rounds[i], one)
		}
	}
	return rounds, nil
}

// print prints the table, what is worse with its output, and what was left.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "containerd %s, kernel %s, cgroup %s\n\n", r.Containerd, r.Kernel, r.Cgroups)
	r.table(w)
	for _, line := range r.worse() {
		for i, results := range line.Results {
			for number, result := range results {
				if result.Outcome != passed && result.Outcome != skipped {
					fmt.Fprintf(w, "\n--- %s on %s, round %d: %s\n%s\n", line.Test, r.Columns[i], number+1, result.Outcome, tail(withoutNoise(result.Output), 30))
					break
				}
			}
		}
	}
	fmt.Fprintln(w)
	for i, column := range r.Rounds {
		counts := map[outcome]int{}
		for _, line := range r.Tests {
			if !strings.Contains(line.Test, "/") {
				for _, result := range line.Results[i] {
					counts[result.Outcome]++
				}
			}
		}
		var seconds float64
		left := 0
		for _, one := range column {
			seconds += one.Seconds
			left += len(one.Left)
		}
		fmt.Fprintf(w, "%s: %s in %d rounds, %.0f s each; %d processes left running\n",
			r.Columns[i], tally(counts), len(column), seconds/float64(len(column)), left)
	}
	if list := r.worse(); len(list) > 0 {
		fmt.Fprintf(w, "%d tests that stock passes fail on cleat\n", len(list))
	}
}

// withoutNoise leaves out what the client library logs on every test.
func withoutNoise(output string) string {
	var kept []string
	for line := range strings.SplitSeq(output, "\n") {
		if !strings.Contains(line, " level=debug ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// tail is the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// cgroups is the version that OCI runtimes will find.
func cgroups() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "v2"
	}
	return "v1"
}
