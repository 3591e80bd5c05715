package early_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
)

func TestMain(m *testing.M) { built.Main(m) }

// What start pays for is what is initialised before it runs. An import too
// many, or one whose path comes late in the order, and all of this would be.
func TestStartRunsBeforeTheRestIsInitialised(t *testing.T) {
	cmd := exec.Command(built.Shim(t), "-v")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	trace, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, trace)
	}
	var order []string
	for line := range strings.Lines(string(trace)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "init" {
			order = append(order, fields[1])
		}
	}
	at := slices.Index(order, "github.com/cleatrun/cleat/shim/bootstrap/early")
	if at < 0 {
		t.Fatalf("early is not among what is initialised:\n%s", trace)
	}
	for _, heavy := range []string{
		"net",
		"google.golang.org/protobuf/internal/impl",
		"github.com/containerd/ttrpc",
		"github.com/cleatrun/cleat/process",
	} {
		if i := slices.Index(order, heavy); i >= 0 && i < at {
			t.Errorf("%s is initialised before start runs", heavy)
		}
	}
}
