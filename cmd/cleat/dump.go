package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/procdump"
	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/spf13/cobra"
)

// dump is everything that can be found out about a shim at one moment.
type dump struct {
	At   time.Time
	Shim *shims.Shim
	// Inspection and Dump are what it says, nil if it does not answer. Then Dump
	// is what it has written on a signal, if it has, and Missing tells what there
	// is not, and why.
	Inspection *control.Inspection `json:",omitempty"`
	Dump       *control.Dump       `json:",omitempty"`
	Missing    []string            `json:",omitempty"`
	Kernel     procdump.Dump
}

func (c *cli) dump() *cobra.Command {
	var path string
	command := &cobra.Command{
		Use: "dump ID", Short: "Write down what a shim does, also of one that hangs",
		Long: `Write into a file what a shim does: the stacks of all its goroutines, the last
operations and how they ended, its whole state, and what the kernel knows of it:
what its threads wait for, its open files, its children.

A shim that does not answer is sent SIGUSR1, if it catches that: it then writes
its stacks without anybody's help. One that cannot even do that, as it is stopped
or hangs in the kernel, is told of by the kernel alone. Nothing is ended by it;
in a shim of cleat SIGQUIT does the same as SIGUSR1.

The file is for its owner only: it can name what containers are called and run.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete,
		RunE: func(command *cobra.Command, args []string) error {
			m, err := c.one(command, args[0])
			if err != nil {
				return err
			}
			if m.Shim.PID == 0 {
				return fmt.Errorf("%s: the process is not to be seen from here", m.Name())
			}
			d, err := c.take(command, m.Shim)
			if err != nil {
				return err
			}
			if path == "-" {
				return c.writeDump(command.OutOrStdout(), d)
			}
			if path == "" {
				name := strings.ReplaceAll(m.Shim.Namespace+"-"+m.Shim.ID, "/", "-")
				path = fmt.Sprintf("cleat-%s-%s.txt", name, d.At.UTC().Format("20060102-150405.000"))
				if c.json {
					path = strings.TrimSuffix(path, "txt") + "json"
				}
			}
			if err := c.keep(path, d); err != nil {
				return err
			}
			if c.json {
				return writeJSON(command.OutOrStdout(), struct {
					File    string
					Missing []string
				}{path, d.Missing})
			}
			for _, missing := range d.Missing {
				fmt.Fprintln(command.OutOrStdout(), missing)
			}
			fmt.Fprintln(command.OutOrStdout(), "written to", path)
			return nil
		},
	}
	command.Flags().StringVarP(&path, "output", "o", "", "the file, which must not exist; - for standard output (default: a new one here)")
	command.MarkFlagFilename("output")
	return command
}

// take asks the shim, then the kernel.
func (c *cli) take(command *cobra.Command, s *shims.Shim) (dump, error) {
	d := dump{At: time.Now(), Shim: s}
	ctx := command.Context()
	missing := func(what string, err error) { d.Missing = append(d.Missing, fmt.Sprintf("no %s: %v", what, err)) }
	if i, err := s.Inspect(ctx, c.host.Limit); err == nil {
		d.Inspection = &i
	} else {
		missing("state", fmt.Errorf("the shim %w", err))
	}
	stacks, err := s.Dump(ctx, c.host.Limit)
	if err != nil {
		stacks, err = s.SignalledDump(ctx, c.host.Limit)
	}
	if err == nil {
		d.Dump = &stacks
	} else {
		missing("stacks of goroutines", err)
	}
	if err := ctx.Err(); err != nil {
		return d, err
	}
	d.Kernel, err = procdump.Read(s.PID)
	return d, err
}

// keep writes a new file.
func (c *cli) keep(path string, d dump) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(c.writeDump(f, d), f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

func (c *cli) writeDump(out io.Writer, d dump) error {
	if c.json {
		return writeJSON(out, d)
	}
	fmt.Fprintf(out, "== %s, process %d, at %s ==\n", d.Shim.Name(), d.Shim.PID, d.At.Format(time.RFC3339Nano))
	for _, missing := range d.Missing {
		fmt.Fprintln(out, missing)
	}
	if d.Inspection != nil {
		fmt.Fprintln(out)
		if err := show(out, shims.Match{Shim: d.Shim}, *d.Inspection); err != nil {
			return err
		}
	}
	if d.Dump != nil {
		fmt.Fprintln(out, "\n== last operations ==")
		t := newTable(out)
		t.row("BEGAN", "TOOK", "OPERATION", "CONTAINER", "EXEC", "ERROR")
		for _, o := range d.Dump.Operations {
			t.row(o.Began.Format(time.RFC3339Nano), age(o.Took), o.Operation, o.Container, o.Exec, o.Error)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(out, "\n== stacks of goroutines ==\n%s\n", strings.TrimSpace(d.Dump.Stacks))
	}
	fmt.Fprintln(out)
	d.Kernel.Write(out)
	if d.Inspection != nil {
		fmt.Fprintln(out, "\n== state ==")
		return writeJSON(out, d.Inspection.State)
	}
	return nil
}
