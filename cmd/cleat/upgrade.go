package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/control/client"
	"github.com/cleatrun/cleat/shim/upgrade"
	"github.com/spf13/cobra"
)

// upgrades is what `cleat upgrade` was asked.
type upgrades struct {
	*cli
	all, keepGoing, dryRun bool
	to                     string
	patience               time.Duration
}

// outcome is how it went with one shim.
type outcome struct {
	Namespace, ID string
	PID           int
	// Result is upgraded, fit (in a dry run), current, failed, or skipped.
	Result   string
	Program  string        `json:",omitempty"`
	From, To string        `json:",omitempty"`
	Pause    time.Duration `json:",omitempty"`
	// Calls to the OCI runtime are under way, which an upgrade would wait for;
	// Oldest is the age of the first.
	Calls  int           `json:",omitempty"`
	Oldest time.Duration `json:",omitempty"`
	Error  string        `json:",omitempty"`
}

// Results of an outcome.
const (
	upgraded = "upgraded"
	fit      = "fit"
	current  = "current" // it runs this program already
	failed   = "failed"
	skipped  = "skipped" // another one has failed before
)

func (c *cli) upgrade() *cobra.Command {
	u := &upgrades{cli: c}
	command := &cobra.Command{
		Use: "upgrade [--all | ID...]", Short: "Replace the program of running shims",
		Long: `Let shims go on as another version of their program: same process, same
containers, same connections, which do not notice. Without --to it is the one
that is installed now where the shim's own was when it was started.

It is done one by one, of all shims the ones with the fewest containers first,
and ends with the first that fails: that shim goes on as it was. A program that
cannot take over from a shim is refused before anything is stopped. A dry run does
just that.

Shims that run the program already are left as they are; those of another make
are left alone.`,
		Example: `  cleat upgrade --all --dry-run
  cleat upgrade --all
  cleat upgrade -n k8s.io web --to /opt/cleat/containerd-shim-cleat-v2`,
		ValidArgsFunction: c.complete,
		Args: func(_ *cobra.Command, args []string) error {
			if u.all == (len(args) > 0) {
				return errors.New("upgrade which? give ids, or --all")
			}
			if u.patience <= 0 {
				return fmt.Errorf("--patience %s: it must be longer than nothing", u.patience)
			}
			return nil
		},
		RunE: u.run,
	}
	flags := command.Flags()
	flags.BoolVar(&u.all, "all", false, "all shims of this host, or of the namespace")
	flags.StringVar(&u.to, "to", "", "the program (default: the one that is installed)")
	flags.BoolVar(&u.keepGoing, "keep-going", false, "go on with the next shim when one fails")
	flags.BoolVar(&u.dryRun, "dry-run", false, "only find out whether it would work")
	flags.DurationVar(&u.patience, "patience", 10*time.Second, "how long calls to the OCI runtime may take to end before")
	command.MarkFlagFilename("to")
	return command
}

func (u *upgrades) run(command *cobra.Command, args []string) error {
	if u.to != "" {
		var err error
		if u.to, err = filepath.Abs(u.to); err != nil {
			return err
		}
		if err := usable(u.to); err != nil {
			return err
		}
	}
	chosen, alone, err := u.choose(command, args)
	if err != nil {
		return err
	}
	out := command.OutOrStdout()
	say := func(format string, args ...any) {
		if !u.json {
			fmt.Fprintf(out, format, args...)
		}
	}
	if len(chosen) == 0 {
		say("there is no shim of cleat\n")
	}
	outcomes := make([]outcome, len(chosen))
	counts := map[string]int{}
	for i, s := range chosen {
		o := outcome{Namespace: s.Namespace, ID: s.ID, PID: s.PID, Result: skipped}
		if (counts[failed] == 0 || u.keepGoing) && command.Context().Err() == nil {
			say("%d of %d  %s, process %d: ", i+1, len(chosen), s.Name(), s.PID)
			u.replace(command.Context(), s, &o)
			say("%s\n", o)
		}
		counts[o.Result]++
		outcomes[i] = o
	}
	if u.json {
		if err := writeJSON(out, outcomes); err != nil {
			return err
		}
	}
	if len(chosen) > 0 {
		say("%s\n", summary(counts, alone))
	}
	if err := command.Context().Err(); err != nil {
		return err
	}
	if counts[failed] > 0 {
		return fmt.Errorf("%d of %d shims cannot be upgraded", counts[failed], len(chosen))
	}
	return nil
}

// choose finds the shims, of all the ones with the fewest containers first and
// those that do not answer last, and counts those that are left alone.
func (u *upgrades) choose(command *cobra.Command, ids []string) (chosen []*shims.Shim, alone int, err error) {
	if u.all {
		found, err := u.host.Find(command.Context())
		if err != nil {
			return nil, 0, err
		}
		chosen = slices.DeleteFunc(found, func(s *shims.Shim) bool { return s.Kind != shims.Cleat })
		alone = len(found) - len(chosen)
		containers := func(s *shims.Shim) int {
			if s.Info == nil {
				return math.MaxInt
			}
			return s.Info.Containers
		}
		slices.SortStableFunc(chosen, func(a, b *shims.Shim) int { return cmp.Compare(containers(a), containers(b)) })
	} else {
		matches, err := u.several(command, ids...)
		if err != nil {
			return nil, 0, err
		}
		for _, m := range matches {
			if !slices.ContainsFunc(chosen, func(s *shims.Shim) bool { return s.PID == m.Shim.PID && s.Socket == m.Shim.Socket }) {
				chosen = append(chosen, m.Shim)
			}
		}
	}
	return chosen, alone, nil
}

// usable refuses a file before any shim is asked.
func usable(path string) error {
	program, err := upgrade.Open(path)
	if err != nil {
		return errors.New(sentence(err))
	}
	defer program.Close()
	kind, err := shims.KindOf(path)
	if err != nil {
		return err
	}
	if kind != shims.Cleat {
		return fmt.Errorf("%s is no cleat: it is containerd's own shim", path)
	}
	return nil
}

// replace has one shim go on as another program, or find out whether it could.
func (u *upgrades) replace(ctx context.Context, s *shims.Shim, o *outcome) {
	fail := func(err error) { o.Result, o.Error = failed, sentence(err) }
	if o.Program = u.to; u.to == "" {
		o.Program = s.Program.Name
	}
	if o.From = s.Release(); s.Err != nil {
		fail(s.Err)
		return
	}
	if !filepath.IsAbs(o.Program) {
		fail(fmt.Errorf("it was started as %q, which is no absolute path: --to tells the program", o.Program))
		return
	}
	if s.Runs(o.Program) {
		o.Result, o.To = current, o.From
		return
	}
	request := control.Upgrade{Path: o.Program, Patience: u.patience}
	// Both trials, the calls, and the steps of the pause: more than enough.
	limit := u.host.Limit + u.patience + 20*time.Second
	err := s.Ask(ctx, limit, func(ctx context.Context, c *client.Client) error {
		if u.dryRun {
			tried, err := c.Try(ctx, request)
			if o.To = tried.To; err != nil {
				return err
			}
			i, err := c.Inspect(ctx)
			if o.Calls = len(i.Calls); o.Calls > 0 {
				o.Oldest = i.Calls[0].Age
			}
			return err
		}
		done, err := c.Upgrade(ctx, request)
		o.To, o.Pause = done.To, done.Pause
		return err
	})
	switch {
	case ctx.Err() != nil:
		fail(errors.New("interrupted; the shim goes on with it, and with one program or the other"))
	case err != nil && s.Ended():
		fail(fmt.Errorf("the shim has ended: %w", err))
	case err != nil:
		fail(err)
	case u.dryRun:
		o.Result = fit
	default:
		o.Result = upgraded
	}
}

// String is the end of a line about one shim.
func (o outcome) String() string {
	switch o.Result {
	case upgraded:
		return fmt.Sprintf("%s -> %s, calls waited %s", o.From, o.To, o.Pause.Round(100*time.Microsecond))
	case fit:
		text := fmt.Sprintf("%s -> %s would work", o.From, o.To)
		if o.Calls > 0 {
			text += fmt.Sprintf(", once %d calls to the OCI runtime have ended (the first runs for %s)", o.Calls, age(o.Oldest))
		}
		return text
	case current:
		return fmt.Sprintf("runs %s already", o.To)
	}
	return "FAILED: " + o.Error
}

// summary tells how many there were of each result.
func summary(counts map[string]int, alone int) string {
	var parts []string
	for _, part := range []struct{ result, words string }{
		{upgraded, "upgraded"}, {fit, "can be upgraded"}, {current, "run it already"}, {failed, "failed"}, {skipped, "not tried"},
	} {
		if n := counts[part.result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, part.words))
		}
	}
	if alone > 0 {
		parts = append(parts, fmt.Sprintf("%d of another make left alone", alone))
	}
	return strings.Join(parts, ", ")
}

// sentence is an error in one line, without the classes that end it: who reads it
// sees what has happened.
func sentence(err error) string {
	text, _, _ := strings.Cut(err.Error(), "\n") // errdefs puts the class on a line of its own
	for {
		before := text
		for _, class := range []string{"invalid argument", "not found", "failed precondition", "unavailable", "context deadline exceeded"} {
			text = strings.TrimSuffix(text, ": "+class)
		}
		if text == before {
			return text
		}
	}
}
