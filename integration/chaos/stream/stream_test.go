package stream

import (
	"fmt"
	"testing"
)

func whole(name string, n int64) []byte {
	text := make([]byte, n)
	Fill(text, name, 0, false)
	return text
}

func TestEveryByteHasItsPlace(t *testing.T) {
	text := whole("s", 10_000)
	for _, piece := range []int{1, 7, 64, 1000, 10_000} {
		got := make([]byte, 0, len(text))
		for at := 0; at < len(text); at += piece {
			p := make([]byte, min(piece, len(text)-at))
			Fill(p, "s", int64(at), false)
			got = append(got, p...)
		}
		if string(got) != string(text) {
			t.Errorf("in pieces of %d it is another", piece)
		}
	}
	for _, wrong := range [][]byte{text[1:], append(append([]byte{}, text[:500]...), text[501:]...), append(append([]byte{}, text[:500]...), text[499:]...), whole("z", 10_000)} {
		c := Check{Name: "s"}
		c.Write(wrong)
		if c.Wrong == nil {
			t.Errorf("%q passes", wrong[:20])
		}
	}
	c := Check{Name: "s"}
	for at := 0; at < len(text); at += 33 {
		c.Write(text[at:min(len(text), at+33)])
	}
	if c.Wrong != nil || c.At != int64(len(text)) {
		t.Errorf("%d bytes, %v", c.At, c.Wrong)
	}
}

func TestGapsOfALogAreMeasured(t *testing.T) {
	text := whole("box/out", 10_000)
	join := func(pieces ...[]byte) (all []byte) {
		for _, p := range pieces {
			all = append(all, p...)
		}
		return all
	}
	notice := func(n int) []byte {
		return fmt.Appendf(nil, "[cleat: %d bytes in %d lines of output dropped]\n", n, n/Line)
	}
	for _, c := range []struct {
		name string
		text []byte
		want Log
	}{
		{"whole", text, Log{Bytes: 10_000}},
		{"nothing", nil, Log{}},
		{"the beginning", text[:777], Log{Bytes: 777}},
		{"a gap", join(text[:4096], text[5000:]), Log{Bytes: 9096, Lost: 904, Gaps: 1}},
		{"two gaps", join(text[:640], text[1280:5000], text[5500:]), Log{Bytes: 8860, Lost: 1140, Gaps: 2}},
		{"the beginning is lost", text[100:], Log{Bytes: 9900, Lost: 100, Gaps: 1}},
		{"a gap that is told", join(text[:640], notice(640), text[1280:]), Log{Bytes: 9360, Lost: 640, Gaps: 1, Dropped: 640}},
		{"told at the end", join(text[:640], notice(9360)), Log{Bytes: 640, Dropped: 9360}},
	} {
		if got := Read(c.text, "box/out"); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	for name, wrong := range map[string][]byte{
		"twice":      join(text[:640], text[:640]),
		"backwards":  join(text[1280:1920], text[640:1280]),
		"a stranger": join(text[:640], []byte("something else\n"), whole("other", 640)),
		"changed":    join(text[:100], []byte("#"), text[101:]),
	} {
		if got := Read(wrong, "box/out"); got.Wrong == nil && got.Lost == 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
