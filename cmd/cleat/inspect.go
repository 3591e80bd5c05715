package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/spf13/cobra"
)

func (c *cli) inspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect ID", Short: "Show what a shim knows and does",
		Long: `Show the state of a shim and its containers, or of one container: processes,
the RPCs that are not answered yet and the calls to the OCI runtime that are
under way, each with its age, how many events wait for containerd, and counters.

With --json the whole state is written, field by field as docs/control.md says.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete,
		RunE: func(command *cobra.Command, args []string) error {
			m, err := c.one(command, args[0])
			if err != nil {
				return err
			}
			i, err := m.Shim.Inspect(command.Context(), c.host.Limit)
			if err != nil {
				return c.seen(command.OutOrStdout(), m, err)
			}
			if m.Container != "" {
				only(&i, m.Container)
			}
			out := command.OutOrStdout()
			if c.json {
				return writeJSON(out, struct {
					Shim *shims.Shim
					control.Inspection
				}{m.Shim, i})
			}
			return show(out, m, i)
		},
	}
}

// seen writes what is to be seen of a shim from outside, which does not answer
// because of err, and returns the sentence on that.
func (c *cli) seen(out io.Writer, m shims.Match, err error) error {
	s := m.Shim
	failure := fmt.Errorf("%s: the shim, process %d, %w; cleat dump %s tells more", m.Name(), s.PID, err, s.ID)
	var bundles []string
	for _, b := range s.Bundles() {
		bundles = append(bundles, string(b))
	}
	if c.json {
		return errors.Join(writeJSON(out, struct {
			Shim    *shims.Shim
			Bundles []string
		}{s, bundles}), failure)
	}
	t := newTable(out)
	t.row("shim", fmt.Sprintf("%s, process %d, %s, for %s", s.Name(), s.PID, s.Process.State, since(s.Started())))
	t.row("program", s.Program.Name)
	t.row("socket", s.Socket)
	t.row("memory", fmt.Sprintf("%s private, %s resident; %d threads", size(s.Process.Private), size(s.Process.Resident), s.Process.Threads))
	for _, b := range bundles {
		t.row("bundle", b)
	}
	return errors.Join(t.Flush(), failure)
}

// one finds a shim of ours, or says what is in the way.
func (c *cli) one(command *cobra.Command, id string) (shims.Match, error) {
	matches, err := c.several(command, id)
	if err != nil {
		return shims.Match{}, err
	}
	return matches[0], nil
}

// several is one, for each of ids.
func (c *cli) several(command *cobra.Command, ids ...string) ([]shims.Match, error) {
	matches, err := c.host.Match(command.Context(), ids...)
	if err != nil {
		return nil, err
	}
	for _, m := range matches {
		if m.Shim.Kind != shims.Cleat {
			return nil, fmt.Errorf("%s is served by %s (%s, process %d), which is left alone", m.Name(), m.Shim.Make(), m.Shim.Program.Name, m.Shim.PID)
		}
	}
	return matches, nil
}

// only leaves of an inspection what is about one container.
func only(i *control.Inspection, container string) {
	i.State.Containers.Served = slices.DeleteFunc(i.State.Containers.Served, func(c process.ContainerState) bool { return c.ID != container })
	i.Calls = slices.DeleteFunc(i.Calls, func(c control.Call) bool { return c.Container != container })
}

// show writes an inspection for people.
func show(out io.Writer, m shims.Match, i control.Inspection) error {
	s := m.Shim
	t := newTable(out)
	t.row("shim", fmt.Sprintf("%s, process %d, %s, for %s", s.Name(), s.PID, s.Process.State, since(i.Info.Started)))
	t.row("program", program(s, i.Info))
	t.row("socket", s.Socket)
	t.row("memory", fmt.Sprintf("%s private, %s resident; %d threads, %d goroutines", size(s.Process.Private), size(s.Process.Resident), s.Process.Threads, i.Counters.Goroutines))
	t.row("RPCs", fmt.Sprintf("%d answered on %d connections, %d open", i.Counters.Requests, i.Counters.Connections, len(i.Requests)))
	t.row("runtime", fmt.Sprintf("%d calls, %d under way", i.Counters.Calls, len(i.Calls)))
	t.row("events", fmt.Sprintf("%d taken by containerd, %d wait for it", i.Counters.EventsTaken, i.Counters.EventsPending))
	if n := len(i.State.Lingering); n > 0 {
		t.row("lingering", fmt.Sprintf("output of %d processes that are deleted is not passed on yet", n))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(i.State.Containers.Served) > 0 {
		t = newTable(out)
		fmt.Fprintln(out)
		t.row("CONTAINER", "EXEC", "PID", "STATE", "UNDER WAY", "STDIO")
		for _, c := range i.State.Containers.Served {
			t.row(c.ID, "", number(c.Init.PID), status(c.Init)+oom(c), c.Init.Operation, stdio(c.Init))
			for _, e := range c.Execs {
				t.row("", e.ExecID, number(e.PID), status(e), e.Operation, stdio(e))
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if m.Container != "" {
			for _, c := range i.State.Containers.Served {
				fmt.Fprintf(out, "\nbundle  %s\n", c.Bundle)
			}
		}
	}
	return underWay(out, i)
}

// underWay writes what is not finished.
func underWay(out io.Writer, i control.Inspection) error {
	t := newTable(out)
	if len(i.Calls) > 0 {
		fmt.Fprintln(out)
		t.row("RUNTIME CALL", "AGE", "CONTAINER")
		for _, c := range i.Calls {
			t.row(c.Operation, age(c.Age), c.Container)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	t = newTable(out)
	open := slices.DeleteFunc(slices.Clone(i.Requests), func(r control.Request) bool { return r.Service == control.Service })
	if len(open) > 0 {
		fmt.Fprintln(out)
		t.row("OPEN RPC", "AGE", "CONNECTION", "NOTE")
		for _, r := range open {
			note := ""
			switch {
			case r.Abandoned:
				note = "the client is gone, the work goes on"
			case r.Answered:
				note = "answered, the client does not read"
			}
			t.row(r.Method, age(r.Age), fmt.Sprintf("%d, stream %d", r.Connection, r.Stream), note)
		}
	}
	return t.Flush()
}

func program(s *shims.Shim, info control.Info) string {
	text := []string{strings.TrimSpace(s.Program.Name + " " + info.Release)}
	if info.Upgrades > 0 {
		text = append(text, fmt.Sprintf("upgraded %d times, last %s ago", info.Upgrades, since(info.Running)))
	}
	if n := note(s); n != "" {
		text = append(text, n)
	}
	return strings.Join(text, "; ")
}

func number(pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprint(pid)
}

// status is the state of a process, and how it ended.
func status(p process.ProcessRecord) string {
	switch {
	case p.State != process.Stopped:
		return p.State.String()
	case p.Exit.Signal != 0:
		return fmt.Sprintf("stopped by signal %d %s ago", p.Exit.Signal, since(p.Exit.At))
	}
	return fmt.Sprintf("stopped with %d %s ago", p.Exit.Status, age(time.Since(p.Exit.At)))
}

func oom(c process.ContainerState) string {
	if c.OOM {
		return ", out of memory"
	}
	return ""
}

// stdio tells what is wrong with the standard IO of a process.
func stdio(p process.ProcessRecord) string {
	if p.Streams == nil {
		return ""
	}
	var notes []string
	for _, o := range p.Streams.Outputs {
		if o.Waiting > 0 {
			notes = append(notes, fmt.Sprintf("%s: %s not taken", o.Name, size(uint64(o.Waiting))))
		}
		if o.Failures > 0 {
			notes = append(notes, fmt.Sprintf("%s: failed %d times, last: %s", o.Name, o.Failures, o.Failure))
		}
	}
	return strings.Join(notes, "; ")
}
