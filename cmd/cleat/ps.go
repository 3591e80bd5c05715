package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/spf13/cobra"
)

func (c *cli) ps() *cobra.Command {
	return &cobra.Command{
		Use: "ps", Short: "List the shims of this host",
		Long: `List the shims of this host: the container or pod for which each was started,
its process, the release that runs, its private memory, how many containers and
execs it serves, and since when it lives.

The ids of Kubernetes and Docker are cut to what is needed; --json has them whole.

NOTE tells what an operator should know: that another program is installed than
the one that runs (cleat upgrade runs it), that the shim does not answer and
what the kernel says of it, or that it is of another make.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			found, err := c.host.Find(command.Context())
			if err != nil {
				return err
			}
			if c.json {
				return writeJSON(command.OutOrStdout(), append([]*shims.Shim{}, found...))
			}
			t := newTable(command.OutOrStdout())
			t.row("NAMESPACE", "GROUP", "PID", "VERSION", "MEMORY", "CONTAINERS", "EXECS", "AGE", "NOTE")
			for _, s := range found {
				var containers, execs, pid string
				if s.Info != nil {
					containers, execs = strconv.Itoa(s.Info.Containers), strconv.Itoa(s.Info.Execs)
				}
				if s.PID != 0 {
					pid = strconv.Itoa(s.PID)
				}
				t.row(s.Namespace, short(s.ID), pid, s.Release(), size(memory(s)), containers, execs, since(s.Started()), note(s))
			}
			return t.Flush()
		},
	}
}

// short is the beginning of an id that a program has made, 64 hexadecimal digits:
// enough to be told from others, and to be typed.
func short(id string) string {
	const digits, enough = 64, 12
	if len(id) == digits && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:enough]
	}
	return id
}

// memory is a shim's own, or at least what it can touch.
func memory(s *shims.Shim) uint64 {
	if s.Process.Private != 0 {
		return s.Process.Private
	}
	return s.Process.Resident
}

// note is what an operator should know of a shim.
func note(s *shims.Shim) string {
	switch {
	case s.Kind != shims.Cleat:
		return s.Make() + ", left alone"
	case s.Silent != "":
		return s.Silent
	case s.Program.Missing:
		return fmt.Sprintf("%s is not installed any more", s.Program.Name)
	case s.Program.Foreign:
		return fmt.Sprintf("%s is no shim of cleat any more", s.Program.Name)
	case s.Program.Pending:
		if s.Program.Installed != "" && s.Program.Installed != s.Release() {
			return fmt.Sprintf("upgrade pending: %s is installed", s.Program.Installed)
		}
		return "upgrade pending: another program is installed"
	}
	return ""
}
