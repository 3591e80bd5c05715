package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/options"
)

// documented are the names in the first column of the tables of
// docs/configuration.md, by the word at the head of that column.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	head := ""
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			head = ""
			continue
		}
		first := strings.TrimSpace(strings.Split(line, "|")[1])
		if head == "" {
			head = first
			continue
		}
		for _, name := range code.FindAllStringSubmatch(first, -1) {
			names[head] = append(names[head], name[1])
		}
	}
	return names
}

// Every key, option and annotation is in the document, and the document has no
// other.
func TestTheDocumentHasWhatThereIs(t *testing.T) {
	same := func(what string, code, document []string) {
		t.Helper()
		for _, name := range code {
			if !slices.Contains(document, name) {
				t.Errorf("%s %s is not in docs/configuration.md", what, name)
			}
		}
		for i, name := range document {
			if !slices.Contains(code, name) {
				t.Errorf("%s %s of docs/configuration.md is not known", what, name)
			}
			if slices.Contains(document[:i], name) {
				t.Errorf("%s %s is twice in docs/configuration.md", what, name)
			}
		}
	}
	names := documented(t)
	same("key", Keys(new(clientKeys)), names["key"])
	var annotations []string
	for _, name := range process.AnnotationNames {
		annotations = append(annotations, process.OwnAnnotations+name)
		// The key annotations can allow each.
		var a options.Annotation
		if err := a.UnmarshalText([]byte(name)); err != nil {
			t.Errorf("annotation %s: %v", name, err)
		}
	}
	same("annotation", annotations, names["annotation"])
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{options.DefaultFile, options.FileVariable} {
		if !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("%s is not in docs/configuration.md", word)
		}
	}
}

// The example of the document is a file.
func TestTheDocumentsExampleIsRead(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```toml\n")
	example, _, end := strings.Cut(after, "```")
	if !ok || !end {
		t.Fatal("there is no example")
	}
	useFile(t, example)
	said, err := Read(options.Message{})
	if err != nil {
		t.Fatal(err)
	}
	s := said.Settings("containerd-shim-cleat-v2")
	if s.Runtime.BinaryName != "/usr/local/bin/crun" || !s.Runtime.SystemdCgroup || s.Stdio.String() != "direct" || s.Limits.Drain.Or(0).Seconds() != 5 {
		t.Errorf("%+v", s)
	}
}
