package options

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/process/stdio/size"
)

// This file has the values that keys can have. Each reads itself from text and
// says what it takes, so that whoever reads a file can tell the line.

// text is a value that is written as a string. The values are structs: into types
// of a simpler kind the TOML library puts what is there without asking them.
type text struct{ s string }

func (t text) String() string { return t.s }

// MarshalText is that of encoding.TextMarshaler.
func (t text) MarshalText() ([]byte, error) { return []byte(t.s), nil }

// oneOf reads text that is one of a few words.
func (t *text) oneOf(value []byte, words ...string) error {
	if !slices.Contains(words, string(value)) {
		return fmt.Errorf("%q is not one of %s", value, strings.Join(words, ", "))
	}
	t.s = string(value)
	return nil
}

// Duration is a time limit, in text as Go writes it: 500ms, 2s, 5m.
type Duration struct{ limit time.Duration }

// UnmarshalText is that of encoding.TextUnmarshaler, as with all values here.
func (d *Duration) UnmarshalText(value []byte) error {
	limit, err := time.ParseDuration(string(value))
	if err != nil || limit < 0 {
		return fmt.Errorf("%q is not a duration such as 2s", value)
	}
	d.limit = limit
	return nil
}

// MarshalText is that of encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.limit.String()), nil }

// Or returns the duration, or what is built in if nothing is said.
func (d *Duration) Or(builtIn time.Duration) time.Duration {
	if d == nil {
		return builtIn
	}
	return d.limit
}

// Stdio is how output gets to the client's FIFO.
type Stdio struct{ text }

func (s *Stdio) UnmarshalText(value []byte) error { return s.oneOf(value, "auto", "direct", "copy") }

// LogFormat is oci.LogFormat in an administrator's words.
type LogFormat struct{ text }

func (f *LogFormat) UnmarshalText(value []byte) error { return f.oneOf(value, "json", "text", "none") }

func (f LogFormat) oci() oci.LogFormat {
	if f.s == "json" {
		return oci.JSONLog
	}
	return oci.LogFormat(f.s)
}

// Signals is oci.Signals in an administrator's words.
type Signals struct{ text }

func (s *Signals) UnmarshalText(value []byte) error { return s.oneOf(value, "pidfd", "runtime") }

func (s Signals) oci() oci.Signals {
	if s.s == "pidfd" {
		return oci.PidfdSignals
	}
	return oci.Signals(s.s)
}

// Processes is oci.Processes in an administrator's words.
type Processes struct{ text }

func (p *Processes) UnmarshalText(value []byte) error { return p.oneOf(value, "host", "elsewhere") }

func (p Processes) oci() oci.Processes {
	if p.s == "host" {
		return oci.HostProcesses
	}
	return oci.Processes(p.s)
}

// Group is which containers share a shim.
type Group struct{ text }

// The groups; one that begins with annotationGroup names the annotation whose
// value is the group.
const (
	podGroup        = "pod"
	containerGroup  = "container"
	namespaceGroup  = "namespace"
	annotationGroup = "annotation:"
)

func (g *Group) UnmarshalText(value []byte) error {
	if key, ok := strings.CutPrefix(string(value), annotationGroup); ok && key != "" {
		g.s = string(value)
		return nil
	}
	if g.oneOf(value, podGroup, containerGroup, namespaceGroup) != nil {
		return fmt.Errorf("%q is not one of pod, container, namespace, annotation:KEY", value)
	}
	return nil
}

// podAnnotations name the group of a container, the first that it has: as
// containerd's own shim reads them, and as CRI-O says which pod it is of.
var podAnnotations = []string{
	"io.containerd.runc.v2.group",
	"io.kubernetes.cri.sandbox-id",
	"io.kubernetes.cri-o.SandboxID",
}

// wholeNamespace is the name of the group of all containers of a namespace; no
// container can be called so.
const wholeNamespace = "*"

// Of returns the name of the group that a container belongs to: all that have
// the same in one namespace share a shim. One without is a group of its own.
func (g Group) Of(id string, annotations map[string]string) string {
	var keys []string
	switch g.s {
	case namespaceGroup:
		return wholeNamespace
	case containerGroup:
	case "", podGroup:
		keys = podAnnotations
	default:
		keys = []string{strings.TrimPrefix(g.s, annotationGroup)}
	}
	for _, key := range keys {
		if group := annotations[key]; group != "" {
			return group
		}
	}
	return id
}

// Annotation names one of the shim's own annotations without what all of them
// begin with.
type Annotation struct{ text }

func (a *Annotation) UnmarshalText(value []byte) error {
	return a.oneOf(value, "drain-limit", "stdio", "logs", "logs-limit")
}

// LogPolicy is stdio.Policy.
type LogPolicy struct{ text }

func (p *LogPolicy) UnmarshalText(value []byte) error {
	return p.oneOf(value, "block", "spill", "drop")
}

// Size is a number of bytes.
type Size struct{ text }

func (s *Size) UnmarshalText(value []byte) error {
	if _, err := size.Parse(string(value)); err != nil && len(value) > 0 {
		return err
	}
	s.s = string(value)
	return nil
}

// Bytes is 0 where nothing was said.
func (s Size) Bytes() int64 {
	n, _ := size.Parse(s.s) // it was read before
	return n
}

// AbsolutePath is the path of a folder, or empty.
type AbsolutePath struct{ text }

func (p *AbsolutePath) UnmarshalText(value []byte) error {
	if len(value) > 0 && !absolute(string(value)) {
		return fmt.Errorf("%q is not an absolute path", value)
	}
	p.s = string(value)
	return nil
}

// Program is the absolute path of a program, a name to be looked up, or empty.
type Program struct{ text }

func (p *Program) UnmarshalText(value []byte) error {
	if strings.Contains(string(value), "/") && !absolute(string(value)) {
		return fmt.Errorf("%q is neither a name nor an absolute path", value)
	}
	p.s = string(value)
	return nil
}

// absolute tells whether p means the same wherever the shim is.
func absolute(p string) bool { return path.IsAbs(p) && !strings.Contains(p, "\x00") }
