package stdio

import (
	"strings"
	"testing"
)

// What a launch that has failed has written to stderr can be told, where a pipe
// stands between; and with Listen one does where the client wants no stderr.
func TestWhatAFailedLaunchSaidIsTold(t *testing.T) {
	dir := t.TempDir()
	fifo := mkfifo(t, dir, "stderr")
	client := reader(t, fifo)
	defer client.Close()
	for name, c := range map[string]struct {
		spec   Spec
		change func(*Options)
		heard  bool
	}{
		"pipe to a FIFO":     {Spec{Stderr: fifo}, func(*Options) {}, true},
		"the FIFO itself":    {Spec{Stderr: fifo}, func(o *Options) { o.Direct = true }, false},
		"stderr apart":       {Spec{Stderr: fifo}, func(o *Options) { o.Direct, o.Apart = true, true }, true},
		"file":               {Spec{Stderr: "file://" + dir + "/log"}, func(*Options) {}, true},
		"none":               {Spec{}, func(*Options) {}, false},
		"none, but listened": {Spec{}, func(o *Options) { o.Listen = true }, true},
	} {
		o := options(t)
		c.change(&o)
		s, err := Open(t.Context(), c.spec, o)
		must(t, name, err)
		_, _, stderr := s.Child()
		_, err = stderr.WriteString(strings.Repeat("x", maxSaid) + "out of luck")
		must(t, name, err)
		want := ""
		if c.heard {
			want = strings.Repeat("x", maxSaid-len("out of luck")) + "out of luck"
		}
		if got := s.Said(); got != want {
			t.Errorf("%s: %q", name, got)
		}
		if got := s.Said(); got != "" {
			t.Errorf("%s: told twice: %q", name, got)
		}
		must(t, name, s.Close())
		if got := s.Said(); got != "" {
			t.Errorf("%s: told of closed streams: %q", name, got)
		}
	}
}
