package integration

// A shim that dies at the wrong moment. What containerd does then is to run the
// action `delete`: it must leave nothing and tell the truth.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestCrashOfAShimIsTold ends a shim by a fault of its own. What Go's runtime has
// to say of it is in containerd's log, whoever reads that of the shim, with the
// container's real exit status.
func TestCrashOfAShimIsTold(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	d := ownDaemon(t, config())
	b := newBox(t, d, "crash", []string{"sh", "-c", "exit 7"})
	events, err := d.Subscribe(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.create(cio.NullIO)
	ended := b.wait(b.task)
	if err := b.task.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	if code := ended(); code != 7 {
		t.Errorf("the container ended with %d, want 7", code)
	}
	if err := unix.Kill(b.shimPID(), unix.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	list, err := events.Until(within(t, soon), b.ID(), func(list []daemon.Event) bool { return indexOf(list, "/tasks/delete", "") >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if (e.Topic == "/tasks/exit" || e.Topic == "/tasks/delete") && e.ExitStatus != 7 {
			t.Errorf("the container ended with 7, and this is told:\n%s", eventLines(list))
		}
	}
	eventually(t, func() error {
		for _, words := range []string{"ended by a fault of its own", "SIGSEGV", "goroutine "} {
			if log := d.Log(); !strings.Contains(log, words) {
				return fmt.Errorf("containerd's log lacks %q:\n%s", words, tail(log, 20))
			}
		}
		return nil
	})
}
