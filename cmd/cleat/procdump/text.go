package procdump

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Write writes it for people.
func (d Dump) Write(out io.Writer) {
	fmt.Fprintf(out, "== what the kernel knows of process %d ==\n", d.PID)
	for _, name := range files {
		fmt.Fprintf(out, "\n-- %s --\n%s\n", name, d.Files[name])
	}
	fmt.Fprintf(out, "\n-- %d threads --\n", len(d.Threads))
	for _, t := range d.Threads {
		fmt.Fprintf(out, "thread %d: %s, wchan %s, syscall %s\n%s\n", t.ID, t.State, t.Wchan, t.Syscall, indent(t.Stack))
	}
	fmt.Fprintf(out, "\n-- %d descriptors --\n", len(d.Descriptors))
	for _, f := range d.Descriptors {
		fmt.Fprintf(out, "%4d  %s  (%s)\n", f.Number, f.Target, strings.Join(strings.Fields(f.Info), " "))
	}
	fmt.Fprintf(out, "\n-- %d children --\n", len(d.Children))
	for _, c := range d.Children {
		fmt.Fprintf(out, "process %d: %q, %s, wchan %s, for %s\n", c.PID, c.Name, c.State, c.Wchan, c.Age.Round(time.Millisecond))
		if len(c.Args) > 0 {
			fmt.Fprintf(out, "    %q\n", c.Args)
		}
	}
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}
