package driver

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Arguments and variables of the runtime's own are in each call, whether go-runc
// makes it or we do.
func TestArgumentsAndVariablesAreInEveryCall(t *testing.T) {
	s := newScriptedWith(t, oci.Options{Args: []string{"--mine", "x y"}, Env: []string{"MINE=1"}},
		`echo "$MINE" >"$0.env"; [ -n "$pidfile" ] && echo 1 >"$pidfile"; exit 0`)
	for name, call := range map[string]func() error{
		"create": func() error { _, err := s.Create(t.Context(), container, Streams{}); return err },
		"start":  func() error { return s.Start(t.Context(), container) },
		"exec":   func() error { _, err := s.Exec(t.Context(), container, "e", specs.Process{}, Streams{}); return err },
		"kill":   func() error { return s.Kill(t.Context(), container, 0, 15, false) },
		"delete": func() error { return s.Delete(t.Context(), container, false) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		args := s.args(t)
		at := slices.Index(args, "--mine")
		if at < 0 || len(args) < at+3 || args[at+1] != "x y" || args[at+2] != name {
			t.Errorf("%s is called with %q", name, args)
		}
		if got := s.read(t, ".env"); got != "1\n" {
			t.Errorf("%s has MINE=%q", name, got)
		}
	}
	os.Remove(s.bundle.InitPidFile()) // which stays for those who clean up
}

// A runtime is given the log that it can write, and its words are found there.
func TestLogIsInTheRuntimesFormat(t *testing.T) {
	const text = `printf 'level=info msg=fine\nlevel=error msg="out of luck"\n\n' >>"$log"; exit 1`
	for format, c := range map[oci.LogFormat]struct{ flags, script, want string }{
		oci.JSONLog: {"--log-format json", text, `level=error msg="out of luck"`}, // it does not keep to it
		oci.TextLog: {"--log-format text", text, `level=error msg="out of luck"`},
		oci.NoLog:   {"", "echo out of luck >&2; exit 1", "out of luck"},
	} {
		s := newScriptedWith(t, oci.Options{LogFormat: format}, c.script)
		if e := failure(t, s.Start(t.Context(), container)); e.Message != c.want {
			t.Errorf("%s: %q, want %q", format, e.Message, c.want)
		}
		args := strings.Join(s.args(t), " ")
		if c.flags == "" && strings.Contains(args, "--log") || !strings.Contains(args, c.flags) {
			t.Errorf("%s: called with %s", format, args)
		}
	}
}

func TestWhatRuntimesSayOfProcessesElsewhere(t *testing.T) {
	s := newScripted(t, `case $command in
wait) echo "$STATUS" ;;
ps) echo '[1, 42]' ;;
events) echo '{"type":"stats","id":"x","data":{"memory":{"usage":{"usage":4096}},"pids":{"current":2}}}' ;;
state) echo '{"status":"stopped"}' ;;
esac`)
	for told, want := range map[string]int{`{"id":"x","exitStatus":7}`: 7, "7": 7, `{"exitStatus":0}`: 0, " 137 ": 137} {
		t.Setenv("STATUS", told)
		if got, err := s.Wait(t.Context(), container, 5); err != nil || got != want {
			t.Errorf("wait that says %q: %d, %v", told, got, err)
		}
	}
	if args := strings.Join(s.args(t), " "); !strings.HasSuffix(args, "wait --pid 5 "+container) {
		t.Errorf("wait is called with %s", args)
	}
	for _, told := range []string{"", "{}", "rubbish", `{"exitStatus":null}`} {
		t.Setenv("STATUS", told)
		if got, err := s.Wait(t.Context(), container, 0); err == nil {
			t.Errorf("wait that says %q: %d", told, got)
		}
	}
	if pids, err := s.Processes(t.Context(), container); err != nil || !slices.Equal(pids, []int{1, 42}) {
		t.Errorf("processes: %v, %v", pids, err)
	}
	if stats, err := s.Stats(t.Context(), container); err != nil || stats.Memory.Usage.Usage != 4096 || stats.Pids.Current != 2 {
		t.Errorf("statistics: %+v, %v", stats, err)
	}
	if stopped, err := s.Stopped(t.Context(), container); err != nil || !stopped {
		t.Errorf("stopped: %t, %v", stopped, err)
	}

	bad := newScripted(t, "echo rubbish; echo words >&2; exit 0")
	if _, err := bad.Processes(t.Context(), container); err == nil || !strings.Contains(err.Error(), `not what was asked for: "rubbish\n"`) {
		t.Errorf("processes that are rubbish: %v", err)
	}
	if _, err := bad.Stats(t.Context(), container); err == nil {
		t.Error("statistics that are rubbish are taken")
	}
	failing := newScripted(t, "echo no such command >&2; exit 3")
	if _, err := failing.Wait(t.Context(), container, 0); failure(t, err).Message != "no such command" {
		t.Errorf("wait that fails: %v", err)
	}
}
