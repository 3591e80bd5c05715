package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
	"github.com/cleatrun/cleat/integration/tools"
)

// said is what go test -json says of a walk whose second step fails.
const said = `{"Action":"start","Package":"p"}
{"Action":"run","Test":"TestWalk/1.7/runc/ctr/pull"}
{"Action":"pass","Test":"TestWalk/1.7/runc/ctr/pull","Elapsed":0.1}
{"Action":"run","Test":"TestWalk/1.7/runc/ctr/run"}
{"Action":"output","Test":"TestWalk/1.7/runc/ctr/run","Output":"=== RUN   TestWalk/1.7/runc/ctr/run\n"}
{"Action":"output","Test":"TestWalk/1.7/runc/ctr/run","Output":"    walk_test.go:12: the container: it ended\n"}
{"Action":"fail","Test":"TestWalk/1.7/runc/ctr/run","Elapsed":0.1}
{"Action":"output","Test":"TestWalk/1.7/crun/ctr","Output":"    walk_test.go:9: containerd ended at once\n"}
{"Action":"fail","Test":"TestWalk/1.7/crun/ctr","Elapsed":0.1}
{"Action":"fail","Package":"p","Elapsed":0.2}
`

func TestTableHasWhatTheTestsSay(t *testing.T) {
	found := results{}
	count, failed, err := found.read(walks, strings.NewReader(said))
	if err != nil || count != 3 || failed != 2 {
		t.Fatalf("%d tests, %d failed, %v", count, failed, err)
	}
	text, ok := tables(found, map[string]string{"1.7": "1.7.99", "runc": "runc 9", "crun": "crun 8"})
	if ok {
		t.Error("a step has failed, and all is said to work")
	}
	rest := strings.Repeat(" | –", len(walk.Steps)-2) + " |\n"
	for _, want := range []string{
		"| 1.7.99 | runc 9 | ctr | ✓ | ✗[^1]" + rest,
		"| 1.7.99 | crun 8 | ctr | ✗[^2] | –" + rest,
		"[^1]: `the container: it ended`\n[^2]: `containerd ended at once`\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

func TestOnlyTheGeneratedPartOfTheDocumentIsReplaced(t *testing.T) {
	document := filepath.Join(t.TempDir(), "d.md")
	for _, old := range []string{"", "old\n"} {
		if err := os.WriteFile(document, []byte("before\n"+begin+old+end+"after\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := put(document, "new\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(document); string(got) != "before\n"+begin+"\nnew\n\n"+end+"after\n" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := os.WriteFile(document, []byte("nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := put(document, "new\n"); err == nil {
		t.Error("a document without the marks is no error")
	}
}

// A release of containerd whose tests fail now and then is no fault of cleat's if
// they do so with its own shim; one that fails with cleat alone is.
func TestCleatIsMeasuredByTheShimOfTheSameRelease(t *testing.T) {
	const passes = `{"Action":"run","Test":"T"}` + "\n" + `{"Action":"pass","Test":"T"}` + "\n"
	const fails = `{"Action":"run","Test":"T"}` + "\n" + `{"Action":"output","Test":"T","Output":"    a_test.go:1: lost\n"}` + "\n" + `{"Action":"fail","Test":"T"}` + "\n"
	const cannot = `{"Action":"run","Test":"T"}` + "\n" + `{"Action":"output","Test":"T","Output":"    a_test.go:1: this containerd cannot: fly\n"}` + "\n" + `{"Action":"skip","Test":"T"}` + "\n"
	sometimes := strings.Replace(cannot, "cannot: fly", "cannot: always fly", 1)
	ours := underCRI(tools.Newest)
	for _, test := range []struct {
		ours, own, cell, note string
		worse                 bool
	}{
		{passes, passes, "✓", "", false},
		{passes, fails, "✓", "", false},
		{fails, passes, "✗[^1]", "lost; with the shim of that containerd it fails in 0 of 1 runs", true},
		{passes + fails + passes, passes + passes + fails, "✗[^1]", "lost (in 1 of 3 runs); with the shim of that containerd it fails in 1 of 3 runs", false},
		{fails + fails + fails, passes + passes + fails, "✗[^1]", "lost (in 3 of 3 runs); with the shim of that containerd it fails in 1 of 3 runs", true},
		{cannot, cannot, "no[^1]", "fly", false},
		{cannot, passes, "no[^1]", "fly", true},
		{sometimes + passes, passes + passes, "no[^1]", "always fly", false},
		{"", passes, "–", "", true},
	} {
		found := results{}
		for room, said := range map[string]string{ours.about(): test.ours, ours.withOwn().about(): test.own} {
			if _, _, err := found.read(room, strings.NewReader(said)); err != nil {
				t.Fatal(err)
			}
		}
		table := &table{notes: &notes{}, ok: true}
		cell := table.cell(found.of(ours, "T"))
		if cell != test.cell || table.ok == test.worse || strings.Join(table.notes.list, "") != test.note {
			t.Errorf("%q beside %q: cell %q, notes %q, ok %t; want %q, %q, %t", test.ours, test.own, cell, table.notes.list, table.ok, test.cell, test.note, !test.worse)
		}
	}
	half := (&table{notes: &notes{}, ok: true}).cell(result{Outcome: "pass"}, result{Outcome: "skip", Output: "a_test.go:1: " + tools.Cannot + "fly\n"})
	if half != "partly[^1]" {
		t.Errorf("what is half there is %q", half)
	}
}
