package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/docker/go-units"
)

// writeJSON writes what --json asks for.
func writeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// table writes rows in columns.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer) table {
	return table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
}

func (t table) row(cells ...any) {
	text := make([]string, len(cells))
	for i, cell := range cells {
		if text[i] = printable(fmt.Sprint(cell)); text[i] == "" {
			text[i] = "-"
		}
	}
	fmt.Fprintln(t, strings.TrimRight(strings.Join(text, "\t"), " "))
}

// printable is a text without what would move the cursor or worse: some of it is
// what other users call their processes.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// size is bytes for people.
func size(bytes uint64) string {
	if bytes == 0 {
		return ""
	}
	return units.BytesSize(float64(bytes))
}

// since is how long something is ago.
func since(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return age(time.Since(at))
}

// age is a duration for people: two figures are enough.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
