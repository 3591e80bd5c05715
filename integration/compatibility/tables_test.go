package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
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
