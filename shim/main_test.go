package shim

// What the tests share. The OCI runtime is package ocitest's script, but in
// lifecycle_test.go, whose is the real one. Some tests run this binary again, as
// the shim's daemon (daemonVariable).

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/ocitest"
)

func TestMain(m *testing.M) {
	ocitest.Console()
	serveIfAsked()
	os.Exit(m.Run())
}

const patience = 20 * time.Second // for what happens at once on an idle machine

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
