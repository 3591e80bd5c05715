package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/handover"
	"github.com/cleatrun/cleat/process"
	"github.com/cleatrun/cleat/shim/upgrade"
)

// A state of every version that this program says it reads is restored, with
// nothing of it lost.
func TestStatesOfEveryVersionAreRestored(t *testing.T) {
	ours := upgrade.Ours()
	for version := ours.Oldest; version <= ours.Version; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			text, err := os.ReadFile(fmt.Sprintf("testdata/state-%d.json", version))
			must(t, "read the state", err)
			var state upgrade.State
			must(t, "decode", json.Unmarshal(text, &state))
			if state.Version != version {
				t.Fatalf("it is of version %d", state.Version)
			}
			must(t, "it is readable", ours.Readable(state.Versions))

			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
			must(t, "listen", err)
			defer l.Close()
			files := &handover.Files{Copy: true}
			files.Add("listener", l)
			if spilled, err := os.Open(fmt.Sprintf("testdata/events-%d", version)); err == nil {
				files.Add("events", spilled)
				spilled.Close()
			}
			inherited := handover.Inherit(files.Numbers)
			s, err := restore(&upgrade.Received{State: state, Files: inherited})
			must(t, "restore", err)
			inherited.Own()
			defer s.listener.Close()

			if sent, pending := s.queue.Counters(); sent != 7 || pending != 3 {
				t.Errorf("%d events sent, %d pending", sent, pending)
			}
			box, err := s.tasks.containers.get("box")
			must(t, "find the container", err)
			if init := box.Init().State(); init.State != process.Stopped || init.PID != 16128 || init.Exit.Status != 3 {
				t.Errorf("init is %+v", init)
			}
			if box.Execs() != 2 || s.upgrades != 4 || s.tasks.containers.expected["next"] == nil {
				t.Errorf("%d execs, %d upgrades, expected %v", box.Execs(), s.upgrades, s.tasks.containers.expected)
			}
			if exit, err := box.Init().Wait(bounded(t)); err != nil || exit.Status != 3 {
				t.Errorf("wait says %+v, %v", exit, err)
			}
			// What it writes of it is the same, but the versions.
			again := s.state(nil)
			again.Versions, again.Release = state.Versions, state.Release
			want, got := compact(t, state), compact(t, again)
			if want != got {
				t.Errorf("restored is\n%s\nwhich is written as\n%s", want, got)
			}
		})
	}
}

// compact is a state without what is not shown, and without what the clock adds.
func compact(t *testing.T, s upgrade.State) string {
	t.Helper()
	for _, c := range s.Containers.Served {
		for i := range c.Execs {
			c.Execs[i].Spec = nil
		}
	}
	for id, until := range s.Containers.Expected {
		s.Containers.Expected[id] = until.Round(time.Second).UTC()
	}
	text, err := json.MarshalIndent(s, "", " ")
	must(t, "encode", err)
	return string(text)
}
