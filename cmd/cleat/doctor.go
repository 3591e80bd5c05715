package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/host"
	"github.com/cleatrun/cleat/cmd/cleat/leftovers"
	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/spf13/cobra"
)

// areas are what can be examined, in the order in which it is.
var areas = []string{"kernel", "cgroups", "runtimes", "containerd", "criu", "limits", "shims", "leftovers"}

// examination is what `cleat doctor` was asked.
type examination struct {
	*cli
	areas  []string
	fix    bool
	states []string
}

// report is what it tells.
type report struct {
	Findings  []host.Finding
	Leftovers []treated
}

// treated is a leftover, and what became of it.
type treated struct {
	leftovers.Leftover
	Removed bool   `json:",omitempty"`
	Error   string `json:",omitempty"`
}

func (c *cli) doctor() *cobra.Command {
	e := &examination{cli: c}
	command := &cobra.Command{
		Use: "doctor [AREA...]", Short: "Find out whether this host is fit, and what dead shims have left",
		Long: `Examine this host: what its kernel can do, the cgroup hierarchy and its
controllers, the OCI runtimes and what they say of themselves, which containerd
runs and which of its runtimes are shims of cleat, CRIU, limits, shims that do
not answer, and what dead shims have left: sockets on which nobody listens,
bundles without a shim, mounts, empty cgroups, OCI runtimes' state of containers
whose bundle is gone. Areas are ` + strings.Join(areas, ", ") + `.

--fix removes what dead shims have left. What still runs of a container whose
shim is dead is killed, as containerd does when it finds it; if its bundle is
gone, it is told and left running. It is removed only if it is still there after
a second, and never what a living shim uses.

The exit code is 1 if anything is a failure, or left over.`,
		ValidArgs: areas,
		Args:      cobra.OnlyValidArgs,
		RunE:      e.run,
	}
	command.Flags().BoolVar(&e.fix, "fix", false, "remove what dead shims have left")
	command.Flags().StringSliceVar(&e.states, "state", nil, "look for bundles in this folder of containerd's, instead of the usual and the running ones'")
	command.MarkFlagDirname("state")
	return command
}

func (e *examination) run(command *cobra.Command, args []string) error {
	e.areas = args
	if len(args) == 0 {
		e.areas = areas
	}
	ctx := command.Context()
	found, err := e.host.Find(ctx)
	if err != nil {
		return err
	}
	daemons := host.Containerds(ctx)
	r := report{Findings: e.examine(ctx, found, daemons), Leftovers: []treated{}}
	if e.asked("leftovers") {
		if r.Leftovers, err = e.clear(ctx, found, daemons); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	out := command.OutOrStdout()
	if e.json {
		err = writeJSON(out, r)
	} else {
		err = r.write(out, e.asked("leftovers"))
	}
	if err != nil {
		return err
	}
	return r.diagnosis()
}

func (e *examination) asked(area string) bool { return slices.Contains(e.areas, area) }

// examine examines all but leftovers.
func (e *examination) examine(ctx context.Context, found []*shims.Shim, daemons []host.Containerd) (all []host.Finding) {
	path := host.OwnPath()
	for _, d := range daemons {
		path = append(path, d.Path...)
	}
	for _, examine := range []struct {
		area string
		by   func() []host.Finding
	}{
		{"kernel", host.Kernel},
		{"cgroups", host.Cgroups},
		{"runtimes", func() []host.Finding { return host.Runtimes(ctx, path) }},
		{"containerd", func() (f []host.Finding) {
			if len(daemons) == 0 {
				return host.NoContainerd(ctx)
			}
			for _, d := range daemons {
				f = append(f, d.Findings()...)
			}
			return f
		}},
		{"criu", func() []host.Finding { return host.CRIU(ctx, path) }},
		{"limits", host.Limits},
		{"shims", func() []host.Finding { return condition(found) }},
	} {
		if e.asked(examine.area) {
			all = append(all, examine.by()...)
		}
	}
	return all
}

// condition is that of the shims.
func condition(found []*shims.Shim) []host.Finding {
	var all []host.Finding
	counts := map[shims.Kind]int{}
	pending, others := 0, 0
	for _, s := range found {
		counts[s.Kind]++
		if s.Program.Pending {
			pending++
		}
		switch {
		case s.Silent == "":
		case errors.Is(s.Err, fs.ErrPermission):
			others++
		default:
			all = append(all, host.Finding{Area: "shims", Name: s.Name(), Verdict: host.Warn, Found: fmt.Sprintf("process %d %s", s.PID, s.Silent), Advice: "cleat dump " + s.ID + " tells more"})
		}
	}
	text := fmt.Sprintf("%d of cleat, %d of containerd's own, %d of another make", counts[shims.Cleat], counts[shims.Stock], counts[shims.Other])
	all = append([]host.Finding{{Area: "shims", Name: "running", Verdict: host.OK, Found: text}}, all...)
	if others > 0 {
		all = append(all, host.Finding{Area: "shims", Name: "of other users", Verdict: host.Note, Found: fmt.Sprintf("%d, who alone may ask them", others)})
	}
	if pending > 0 {
		all = append(all, host.Finding{Area: "shims", Name: "upgrade pending", Verdict: host.Note, Found: fmt.Sprintf("of %d: cleat upgrade --all", pending)})
	}
	return all
}

// clear finds what is left over and, if that is asked for, removes it.
func (e *examination) clear(ctx context.Context, found []*shims.Shim, daemons []host.Containerd) ([]treated, error) {
	everything := found
	if e.host.Namespace != "" { // what others use is not left over
		all := e.host
		all.Namespace = ""
		var err error
		if everything, err = all.Find(ctx); err != nil {
			return nil, err
		}
	}
	search := leftovers.Search{Namespace: e.host.Namespace, SocketDirs: e.host.Dirs(), States: e.states, Live: everything, Limit: e.host.Limit}
	path := host.OwnPath()
	for _, d := range daemons {
		path = append(path, d.Path...)
		for _, h := range d.Handlers {
			search.Roots = append(search.Roots, h.Options.Root)
		}
	}
	var err error
	if search.Runtimes, err = host.Configured(path); err != nil {
		return nil, err
	}
	if len(e.states) == 0 {
		search.States = states(everything, daemons)
	}
	if e.host.Namespace != "" && len(e.host.SocketDirs) == 0 {
		search.SocketDirs = nil // a socket is of no namespace
	}
	left := search.Find(ctx)
	if e.fix && len(left) > 0 {
		select {
		case <-time.After(leftovers.Settle):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		left = search.Again(ctx, left)
	}
	all := make([]treated, len(left))
	for i, l := range left {
		all[i].Leftover = l
		if !e.fix || l.Foreign || ctx.Err() != nil {
			continue
		}
		if err := l.Remove(); err != nil {
			all[i].Error = sentence(err)
		} else {
			all[i].Removed = true
		}
	}
	return all, nil
}

// states are the folders of all containerds that are known.
func states(found []*shims.Shim, daemons []host.Containerd) []string {
	dirs := []string{"/run/containerd"}
	for _, d := range daemons {
		dirs = append(dirs, d.State)
	}
	for _, s := range found {
		if dir := leftovers.StateOf(s); dir != "" && shims.SameMounts(s.PID) {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// write writes it for people.
func (r report) write(out io.Writer, searched bool) error {
	area := ""
	for _, f := range r.Findings {
		if f.Area != area {
			area = f.Area
			fmt.Fprintln(out, area)
		}
		fmt.Fprintf(out, "  %-8s %-22s %s\n", f.Verdict, f.Name, f.Found)
		if f.Advice != "" {
			fmt.Fprintf(out, "  %-8s %-22s -> %s\n", "", "", f.Advice)
		}
	}
	if !searched {
		return nil
	}
	fmt.Fprintln(out, "leftovers")
	if len(r.Leftovers) == 0 {
		fmt.Fprintln(out, "  ok       none")
	}
	for _, l := range r.Leftovers {
		word, name := "LEFT", l.Path
		switch {
		case l.Removed:
			word = "removed"
		case l.Foreign:
			word = "note"
		}
		fmt.Fprintf(out, "  %-8s %-22s %s (%s)\n", word, l.Kind, name, l.Why)
		if l.Error != "" {
			fmt.Fprintf(out, "  %-8s %-22s -> not removed: %s\n", "", "", l.Error)
		}
		if l.Foreign {
			fmt.Fprintf(out, "  %-8s %-22s -> of another make, left alone\n", "", "")
		}
	}
	return nil
}

// diagnosis is an error if the host is not well.
func (r report) diagnosis() error {
	failures, left := 0, 0
	for _, f := range r.Findings {
		if f.Verdict == host.Bad {
			failures++
		}
	}
	for _, l := range r.Leftovers {
		if !l.Removed && !l.Foreign {
			left++
		}
	}
	var parts []string
	if failures > 0 {
		parts = append(parts, fmt.Sprintf("%d failures", failures))
	}
	if left > 0 {
		parts = append(parts, fmt.Sprintf("%d things that dead shims have left", left))
	}
	if len(parts) == 0 {
		return nil
	}
	return errors.New("this host is not well: " + strings.Join(parts, ", "))
}
