package stdio

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filled makes a FIFO with something in it and returns a read end as
// the shim holds one, and another as a client does.
func filled(t *testing.T) (hold, client *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := lookupFIFO("stdout", path)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if hold, err = n.reader(true); err != nil {
		t.Fatal(err)
	}
	if client, err = n.reader(false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	writer, err := n.writer(true)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	return hold, client
}

// An exec's Delete must not be answered before its output is read: the client
// throws away what it has not read by then.
func TestOutputIsReadBeforeItsEndIsTold(t *testing.T) {
	hold, client := filled(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- awaitReader(ctx, hold) }()
	select {
	case err := <-done:
		t.Fatalf("it did not wait for the reader: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	text, err := io.ReadAll(client) // to the end, which is not held back
	if err != nil || string(text) != "last words" {
		t.Errorf("read %q, %v", text, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNobodyWaitsForAReaderThatIsGone(t *testing.T) {
	hold, client := filled(t)
	client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := awaitReader(ctx, hold); err != nil {
		t.Error(err)
	}
}

func TestAReaderThatDoesNotReadIsNotWaitedForLonger(t *testing.T) {
	hold, _ := filled(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := awaitReader(ctx, hold); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the time is over", err)
	}
}
