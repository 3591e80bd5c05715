package walk

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// talk is the two directions in which one talks with a process.
type talk struct {
	in    io.WriteCloser
	heard func() (string, error)
	end   func() // may be nil
}

func (k *talk) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(k.in, line+"\n"); err != nil {
		t.Fatalf("say %q: %v", line, err)
	}
}

// hear waits until the process has said a line.
func (k *talk) hear(t *testing.T, line string) {
	t.Helper()
	eventually(t, func() error {
		text, err := k.heard()
		if err == nil && !strings.Contains(text, line+"\n") {
			err = fmt.Errorf("the process does not say %q but:\n%s", line, text)
		}
		return err
	})
}

func (k *talk) close() {
	if k == nil {
		return
	}
	k.in.Close()
	if k.end != nil {
		k.end()
	}
}

// ears keep what is written.
type ears struct {
	mu   sync.Mutex
	text strings.Builder
}

func (e *ears) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(b)
}

func (e *ears) heard() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.String(), nil
}

// written is what a file has.
func written(path string) func() (string, error) {
	return func() (string, error) {
		text, err := os.ReadFile(path)
		return string(text), err
	}
}
