// Command bench measures the shim of this repository against containerd's own,
// and against what can be reached at all: OCI runtimes that are run by hand, a Go
// process that does nothing, conmon. All contenders run on the same private
// containerd, in turn, so that a busy machine is busy for all of them.
//
// It shows what it does, writes build/bench/results.json, and says of every
// budget (rows.go) whether it is met. With -doc it writes the tables of
// docs/performance.md. Ctrl-C ends it early: what was measured is kept, and what
// runs is removed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// setupTime bounds the building on a machine that has nothing yet.
const setupTime = 20 * time.Minute

// settings are what the command line says.
type settings struct {
	form     string
	only     *regexp.Regexp
	part     bool // only says something
	runs     int
	out, doc string
	beside   string // path of another build of the shim
	root     bool
}

func main() {
	place.KeepIfAsked()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	s, list, err := parse(args)
	if err != nil {
		return err
	}
	if list {
		for _, m := range measurements {
			fmt.Fprintf(stdout, "%-12s %s\n", m.name, m.what)
		}
		return nil
	}
	if s.doc != "" {
		if err := checkDocument(s.doc); err != nil {
			return fmt.Errorf("-doc: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	building, done := context.WithTimeout(ctx, setupTime)
	programs, err := tools.Ensure(building, stdout)
	program := ""
	if err == nil {
		if program, err = programOf(building, programs); err != nil {
			err = fmt.Errorf("tell the shim from other versions: %w", err)
		}
	}
	done()
	if err != nil {
		return err
	}
	for i := range s.runs {
		if s.runs > 1 {
			fmt.Fprintf(stdout, "Run %d of %d.\n", i+1, s.runs)
		}
		err = errors.Join(err, once(ctx, s, programs, program, stdout))
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// once makes one run. It counts among the whole ones in a row (runs.go) if all was
// asked for and nothing cut it short.
func once(ctx context.Context, s settings, programs tools.Tools, program string, stdout io.Writer) error {
	b := &bench{ctx: ctx, settings: s, n: forms[s.form], tools: programs, program: program, progress: stdout, results: newResults(s.form)}
	failed := b.all()
	if ctx.Err() != nil {
		b.results.Interrupted = true
	}
	path := filepath.Join(s.out, "results.json")
	if s.part {
		b.results.keep(path)
	}
	if err := b.results.write(path); err != nil {
		return errors.Join(failed, err)
	}
	past := readHistory(s.out)
	if b.results.whole && !s.part {
		past.add(b.results)
		failed = errors.Join(failed, past.write(s.out))
	}
	runs := past.of(s.form, b.results.Machine)
	fmt.Fprintln(stdout)
	b.results.print(stdout)
	printRuns(stdout, runs)
	if s.doc != "" && ctx.Err() == nil {
		failed = errors.Join(failed, b.results.document(s.doc, runs))
	}
	if ctx.Err() != nil {
		failed = errors.Join(errors.New("interrupted: the above is what was measured until then"), failed)
	}
	return failed
}

func parse(args []string) (s settings, list bool, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "measure only what this regular expression matches (-list names all)")
	root := flags.Bool("root", os.Geteuid() == 0, "measure what needs root")
	flags.StringVar(&s.form, "form", "full", "full, quick (under two minutes), or tiny (a few seconds, figures are of no use)")
	flags.IntVar(&s.runs, "runs", 1, "how many runs are made, one after the other; the last three whole ones of the same program are compared")
	flags.StringVar(&s.out, "out", "../build/bench", "folder of results.json")
	flags.StringVar(&s.doc, "doc", "", "document whose tables are written")
	flags.StringVar(&s.beside, "beside", "", "another build of the shim, which is measured beside the others")
	flags.BoolVar(&list, "list", false, "list what is measured")
	if err := flags.Parse(args); err != nil {
		return s, false, err
	}
	if flags.NArg() > 0 {
		return s, false, fmt.Errorf("what is %q? (-help)", flags.Arg(0))
	}
	if _, ok := forms[s.form]; !ok {
		return s, false, fmt.Errorf("-form %s: it is full, quick or tiny", s.form)
	}
	if s.runs < 1 {
		return s, false, fmt.Errorf("-runs %d: it is one at least", s.runs)
	}
	s.root, s.part = *root, *only != ""
	if s.only, err = regexp.Compile("^(?:" + *only + ")"); err != nil {
		return s, false, fmt.Errorf("-only: %w", err)
	}
	return s, list, nil
}
