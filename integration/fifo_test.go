package integration

// Standard IO by FIFOs that a test makes and opens itself, without the client
// library's copying: so it sees when exactly they end.

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"
)

// fifos gives a process these FIFOs and nothing else. An empty path is a stream
// that nobody wants.
func fifos(stdin, stdout, stderr string, terminal bool) cio.Creator {
	return func(string) (cio.IO, error) {
		return bare{cio.Config{Stdin: stdin, Stdout: stdout, Stderr: stderr, Terminal: terminal}}, nil
	}
}

// bare is standard IO that the client library only passes the names of.
type bare struct{ config cio.Config }

func (b bare) Config() cio.Config { return b.config }
func (bare) Cancel()              {}
func (bare) Wait()                {}
func (bare) Close() error         { return nil }

// feed is a FIFO for input.
type feed struct {
	t    *testing.T
	path string
	end  *os.File
}

func newFeed(t *testing.T) *feed {
	t.Helper()
	return &feed{t: t, path: newFIFO(t).path}
}

// open opens the FIFO for writing as soon as somebody reads it.
func (f *feed) open() *feed {
	f.t.Helper()
	eventually(f.t, func() (err error) {
		f.end, err = os.OpenFile(f.path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.ENXIO) {
			err = fmt.Errorf("nobody reads the input: %w", err)
		}
		return err
	})
	f.t.Cleanup(f.close)
	return f
}

// write writes text to the input.
func (f *feed) write(text string) {
	f.t.Helper()
	if _, err := f.end.WriteString(text); err != nil {
		f.t.Fatalf("write %q to the input: %v", text, err)
	}
}

// close is what a client does that goes away.
func (f *feed) close() { f.end.Close() }
