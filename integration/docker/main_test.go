// Package docker tests the shim under Docker: the dockerd, containerd and runc
// of two releases of Debian, whole and unchanged, each on a machine of its own
// (machine_test.go). With CLEAT_TEST_RUNTIME=io.containerd.runc.v2 the same
// tests run on the stock shim of those releases.
package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// The limits are for a slow machine; nothing waits for one to pass.
const (
	setUpTime  = 20 * time.Minute
	testTime   = 3 * time.Minute
	settleTime = 30 * time.Second
)

// Set by TestMain and not changed afterwards.
var (
	programs tools.Tools
	stock    bool
)

// engines are those of the kinds, each started by the first test that uses it.
var engines struct {
	sync.Mutex
	list map[string]func() (*engine, error)
}

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) (code int) {
	stock = os.Getenv("CLEAT_TEST_RUNTIME") == "io.containerd.runc.v2"
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	var err error
	if programs, err = tools.Ensure(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		return 1
	}
	if stock {
		kinds = stockKinds
	}
	engines.list = make(map[string]func() (*engine, error))
	for _, k := range kinds {
		engines.list[k.name] = sync.OnceValues(func() (*engine, error) { return startEngine(ctx, k) })
	}
	started := make(map[string]*engine)
	engineStarted = func(e *engine) { engines.Lock(); defer engines.Unlock(); started[e.kind.name] = e }
	code = m.Run()
	for _, e := range started {
		if err := e.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// engineStarted notes an engine that TestMain has to remove.
var engineStarted func(*engine)

// onEach runs a test on all kinds of Docker at the same time. Each has an engine
// to itself, on which nothing may be left.
func onEach(t *testing.T, test func(*testing.T, *bench)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			e, err := engines.list[k.name]()
			if err != nil {
				t.Fatal(err)
			}
			engineStarted(e)
			ctx, cancel := context.WithTimeout(t.Context(), testTime)
			defer cancel()
			b := &bench{engine: e, t: t, ctx: ctx}
			defer func() {
				b.clear()
				e.nothingLeft(t)
				if t.Failed() {
					t.Logf("the daemons wrote:\n%s", e.logs())
				}
			}()
			test(t, b)
		})
	}
}

// until asks again and again whether something holds, for what nobody tells
// when it does, and returns why it does not if that stays so.
func until(ctx context.Context, holds func() error) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := holds()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
