package process

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
)

// What an annotation says goes over the configuration; a limit is of the policy
// that it was said with.
func TestAnnotationsSayWhatBecomesOfOutput(t *testing.T) {
	configured := stdio.Logs{Policy: stdio.Spill, Limit: 32 << 20, Dir: "/var/spool"}
	for _, c := range []struct {
		annotations map[string]string
		want        stdio.Logs
		says        string
	}{
		{nil, configured, ""},
		{map[string]string{"logs": "spill"}, configured, ""},
		{map[string]string{"logs-limit": "1m"}, stdio.Logs{Policy: stdio.Spill, Limit: 1 << 20, Dir: "/var/spool"}, ""},
		{map[string]string{"logs": "drop"}, stdio.Logs{Policy: stdio.Drop, Dir: "/var/spool"}, ""},
		{map[string]string{"logs": "drop", "logs-limit": "64k"}, stdio.Logs{Policy: stdio.Drop, Limit: 64 << 10, Dir: "/var/spool"}, ""},
		{map[string]string{"logs": "block"}, stdio.Logs{Policy: stdio.Block, Dir: "/var/spool"}, ""},
		{map[string]string{"logs": "keep"}, configured, `"keep" is not one of block, spill, drop`},
		{map[string]string{"logs": "block", "logs-limit": "1m"}, configured, "a limit says nothing"},
		{map[string]string{"logs-limit": "much"}, configured, `"much" is not a size`},
		{map[string]string{"logs": "drop", "logs-limit": "1g"}, configured, "is not between"},
		{map[string]string{"stdio": "direct"}, configured, "no output to spill"},
		{map[string]string{"log": "spill"}, configured, "log is not known"},
	} {
		t.Run(fmt.Sprint(c.annotations), func(t *testing.T) {
			own := map[string]string{"somebody.else": "says"}
			for name, value := range c.annotations {
				own[OwnAnnotations+name] = value
			}
			box := New(Config{ID: "box", Logs: configured})
			err := box.annotate(own)
			if c.says == "" {
				must(t, "annotate", err)
			} else if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if got := box.init.logs(); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			// An exec's client has asked for its output.
			if got := newProcess(box, "exec", stdio.Spec{}).logs(); got != (stdio.Logs{}) {
				t.Errorf("%+v for an exec", got)
			}
			box.init.state.State = Running
			err = box.annotate(map[string]string{OwnAnnotations + "logs": "drop"})
			if c.annotations["logs"] != "drop" && c.says == "" && !errdefs.IsFailedPrecondition(err) {
				t.Errorf("changed later: %v", err)
			}
		})
	}
}
