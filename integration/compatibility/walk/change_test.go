package walk

import (
	"testing"

	"github.com/cleatrun/cleat/integration/tools"
)

// changes are the releases that take each other's place: neighbours, and all with
// the newest; the latter alone where not all releases are walked on.
func changes() (list [][2]tools.Containerd) {
	known := releases()
	if !all() {
		known = append(known, tools.Newest)
	}
	for i, older := range known {
		for _, newer := range known[i+1:] {
			if newer == tools.Newest || all() && newer == known[i+1] {
				list = append(list, [2]tools.Containerd{older, newer}, [2]tools.Containerd{newer, older})
			}
		}
	}
	return list
}

// TestChange brings another release of containerd under containers that run, up
// and down.
func TestChange(t *testing.T) {
	for _, change := range changes() {
		from, to := change[0], change[1]
		for _, by := range Users {
			if !all() && by != "ctr" {
				continue
			}
			t.Run(from.Name+"/"+to.Name+"/"+by, func(t *testing.T) {
				t.Parallel()
				w := newWalk(t, from, "runc", nil, users[by], ourRuntime)
				w.step(t, "before", func() {
					w.starts()
					w.lists()
				})
				w.step(t, "away", func() {
					w.away(w.d.Stop)
					if err := w.d.Become(programs.With(to)); err != nil {
						w.t.Fatal(err)
					}
				})
				w.step(t, "found", w.found)
				w.step(t, "exit", w.exit)
				w.step(t, "streams", w.streams)
				w.step(t, "again", w.again)
				w.step(t, "new", w.runs)
				w.step(t, "stop", w.stop)
				w.step(t, "clean", w.clean)
			})
		}
	}
}
