package walk

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cleatrun/cleat/integration/tools"
)

// stockRuntime is the name of containerd's own shim, under which cleat is the
// drop-in.
const stockRuntime = "io.containerd.runc.v2"

// leader is a shim that has a pod when cleat comes, and the containerd that has
// started it.
type leader struct {
	tools.Containerd
	name, shim string
}

// leaders are the own shims of releases of containerd: one that speaks version 2 of
// the Task API alone, and those that speak version 3. Debian's are not among them
// (tools.EnsureContainerd says why). Then there is an earlier cleat with the oldest
// containerd and the newest.
func leaders() (list []leader) {
	known := append(releases(), tools.Newest)
	for i, c := range known {
		if c.Debian == "" && (i == 0 || known[i-1] != c) {
			list = append(list, leader{c, c.Name, programs.With(c).StockShim})
		}
	}
	if _, err := os.Stat(programs.Earlier()); err != nil {
		return list // in a machine, which has no program of the kind
	}
	for _, c := range []tools.Containerd{tools.Containerds[0], tools.Newest} {
		list = append(list, leader{c, "cleat-" + c.Name, programs.Earlier()})
	}
	return list
}

// TestJoin installs cleat under the name of containerd's own shim while a pod is
// there that has the latter, or an earlier cleat by its name. A container that joins the pod is served by the
// shim that the pod has, and containerd is told what that one speaks.
func TestJoin(t *testing.T) {
	for _, leader := range leaders() {
		t.Run(leader.name, func(t *testing.T) {
			t.Parallel()
			installed := t.TempDir()
			shim := filepath.Join(installed, filepath.Base(programs.StockShim))
			install(t, shim, leader.shim)
			w := newWalk(t, leader.Containerd, "runc", []string{installed}, newCtr, stockRuntime)
			// The newest looks for shims where the older ones have them.
			if err := replace(w.d.Place.Sockets(), func() error { return os.Symlink(sockets, w.d.Place.Sockets()) }); err != nil {
				t.Fatal(err)
			}
			pod := map[string]string{"io.containerd.runc.v2.group": "pod-" + filepath.Base(w.d.Dir)}
			var members []string
			var talking []*talk
			add := func(id string) {
				w.t.Helper()
				talk := w.start(id, pod, "sh", "-c", talks, id)
				talk.hear(w.t, id+" is there")
				talking = append(talking, talk)
				members = append(members, id)
				w.runsAs(id)
			}
			execs := func() {
				w.t.Helper()
				for _, id := range members {
					output, status := w.user.exec(id, "exec-"+id, "sh", "-c", "echo $0; exit 4", id)
					if output != id+"\n" || status != 4 {
						w.t.Errorf("an exec in %s wrote %q and ended with %d, want %q and 4", id, output, status, id+"\n")
					}
				}
			}
			var address string
			var version int
			w.step(t, "leader", func() {
				add("first")
				address, version = w.shimOf("first")
				if want := map[bool]int{true: 2, false: 3}[leader.Older("2.0")]; version != want {
					w.t.Errorf("the pod's shim speaks version %d, want %d", version, want)
				}
				runsShim(w, leader.shim)
			})
			joins := func(id string) {
				w.t.Helper()
				add(id)
				if at, v := w.shimOf(id); at != address || v != version {
					w.t.Errorf("%s has a shim at %s that speaks version %d, the pod's is at %s and speaks %d", id, at, v, address, version)
				}
				runsShim(w, leader.shim)
			}
			w.step(t, "join", func() {
				install(w.t, shim, programs.Shim)
				joins("second")
			})
			w.step(t, "exec", execs)
			w.step(t, "newer", func() {
				if err := w.d.Stop(); err != nil {
					w.t.Fatal(err)
				}
				if err := w.d.Become(programs.With(tools.Newest)); err != nil {
					w.t.Fatal(err)
				}
				if err := w.d.Run(w.t.Context()); err != nil {
					w.t.Fatal(err)
				}
				if leader.shim == programs.Earlier() {
					version = 3 // cleat serves both, and the newest takes this one
				}
				joins("third")
				execs()
			})
			w.step(t, "stop", func() {
				for _, id := range members {
					w.stops(id, 9)
				}
			})
			w.step(t, "clean", func() {
				if _, err := os.Lstat(filepath.Join(sockets, address)); !os.IsNotExist(err) {
					w.t.Errorf("the socket of the pod's shim is left (%v)", err)
				}
				// Those of other walks are here, too.
				if err := replace(w.d.Place.Sockets(), func() error { return os.Mkdir(w.d.Place.Sockets(), 0o711) }); err != nil {
					w.t.Fatal(err)
				}
				for _, talk := range talking {
					talk.close()
				}
				w.clean()
			})
		})
	}
}

// install puts a program where containerd finds it, in one step.
func install(t *testing.T, path, program string) {
	t.Helper()
	if err := os.Symlink(program, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// replace makes something else of a folder or a link.
func replace(path string, with func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return with()
}

// shimOf is what containerd has been told by the start of a container's shim.
func (w *walk) shimOf(id string) (address string, version int) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.d.Bundle(id), "bootstrap.json"))
	if os.IsNotExist(err) { // as of 1.7, which has told version 2 alone then
		text, err = os.ReadFile(filepath.Join(w.d.Bundle(id), "address"))
		version = 2
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if version == 2 {
		return filepath.Base(string(text)), version
	}
	var answer struct {
		Address string
		Version int
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		w.t.Fatal(err)
	}
	// The folder's name may be that of the link to it.
	return filepath.Base(answer.Address), answer.Version
}

// runsShim checks that one shim runs, and of which program.
func runsShim(w *walk, program string) {
	w.t.Helper()
	w.eventually(func() error {
		var shims, programs []string
		for _, p := range w.d.Processes() {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID))
			if err != nil || string(name) != "containerd-shim\n" {
				continue
			}
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
			if err != nil {
				return err
			}
			shims, programs = append(shims, p.String()), append(programs, exe)
		}
		if len(shims) != 1 || programs[0] != program {
			return fmt.Errorf("shims run of the programs %q, want one of %s: %q", programs, program, shims)
		}
		return nil
	})
}
