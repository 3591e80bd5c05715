package integration

// The client's side of a container's output.

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tap is a FIFO that a client makes for output, and what came through it.
type tap struct {
	t    *testing.T
	path string
	end  chan struct{} // closed at the end of the output

	mu    sync.Mutex // guards what follows
	bytes bytes.Buffer
	grown chan struct{} // closed and replaced with every piece
	file  *os.File
	gone  bool // nobody is interested any more
}

// newTap makes a FIFO and reads it.
func newTap(t *testing.T) *tap {
	t.Helper()
	p := newFIFO(t)
	p.read()
	return p
}

// newFIFO makes a FIFO that nobody reads yet.
func newFIFO(t *testing.T) *tap {
	t.Helper()
	p := &tap{t: t, path: filepath.Join(t.TempDir(), "fifo"), end: make(chan struct{}), grown: make(chan struct{})}
	if err := unix.Mkfifo(p.path, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// read begins to read, as containerd's clients do: they wait for a writer.
func (p *tap) read() {
	p.t.Cleanup(func() {
		// Ends a wait for a writer that never came, and a read of one that
		// stays.
		if f, err := os.OpenFile(p.path, os.O_RDWR, 0); err == nil {
			f.Close()
		}
		p.mu.Lock()
		p.gone = true
		if p.file != nil {
			p.file.Close()
		}
		p.mu.Unlock()
		<-p.end
	})
	go func() {
		defer close(p.end)
		f, err := os.OpenFile(p.path, os.O_RDONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		p.mu.Lock()
		p.file = f
		gone := p.gone
		p.mu.Unlock()
		if !gone {
			io.Copy(p, f)
		}
	}()
}

func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes.Write(b)
	close(p.grown)
	p.grown = make(chan struct{})
	return len(b), nil
}

func (p *tap) sofar() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes.String()
}

// all waits for the end of the output and returns it.
func (p *tap) all() string {
	p.t.Helper()
	select {
	case <-p.end:
	case <-within(p.t, soon).Done():
		p.t.Fatalf("the output does not end; so far %q", tail(p.sofar(), 5))
	}
	return p.sofar()
}

// expect waits until the output contains text.
func (p *tap) expect(text string) {
	p.t.Helper()
	ctx := within(p.t, soon)
	for {
		p.mu.Lock()
		found, grown := bytes.Contains(p.bytes.Bytes(), []byte(text)), p.grown
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-grown:
		case <-p.end:
			if !strings.Contains(p.sofar(), text) {
				p.t.Fatalf("the output ends without %q; it is %q", text, tail(p.sofar(), 5))
			}
			return
		case <-ctx.Done():
			p.t.Fatalf("the output does not contain %q but is %q", text, tail(p.sofar(), 5))
		}
	}
}
