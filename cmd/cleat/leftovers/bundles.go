package leftovers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/bootstrap/cleanup"
	"github.com/moby/sys/mountinfo"
)

// bundles are all of the states.
func (s Search) bundles(ctx context.Context) []bundle {
	var all []bundle
	for _, state := range s.States {
		for _, namespace := range names(filepath.Join(state, tasks)) {
			for _, b := range shims.BundlesIn(filepath.Join(state, tasks, namespace)) {
				if ctx.Err() != nil {
					return all
				}
				all = append(all, s.look(b, namespace))
			}
		}
	}
	return all
}

// look finds out about one. A bundle that names no socket has no shim yet.
func (s Search) look(b oci.Bundle, namespace string) bundle {
	found := bundle{Bundle: b, namespace: namespace, id: filepath.Base(string(b)), socket: shims.Address(b)}
	found.dead = found.socket != "" && !s.alive(found.socket) && !listened(found.socket)
	if found.dead {
		found.foreign = !ours(b)
	}
	return found
}

// ours tells whether a shim of cleat was started for a bundle. A member of a
// sandbox does not tell, but its sandbox does.
func ours(b oci.Bundle) bool {
	program, err := b.Read("shim-binary-path")
	if err != nil {
		leader, err := b.Read("sandbox")
		if err != nil || bootstrap.ValidName(string(leader)) != nil {
			return false
		}
		sandbox := oci.Bundle(filepath.Join(filepath.Dir(string(b)), string(leader)))
		if program, err = sandbox.Read("shim-binary-path"); err != nil {
			return false
		}
	}
	kind, err := shims.KindOf(strings.TrimSpace(string(program)))
	return err == nil && kind == shims.Cleat
}

// remains tells what there is of the container of a dead shim.
func (b bundle) remains() string {
	what := []string{"its shim is dead"}
	if pid := b.process(); pid != 0 {
		what = append(what, fmt.Sprintf("its process %d still runs", pid))
	}
	if mounts := mountsBelow(string(b.Bundle)); len(mounts) > 0 {
		what = append(what, fmt.Sprintf("%d mounts", len(mounts)))
	}
	if _, err := b.ReadExit(); err == nil {
		what = append(what, "its exit is recorded")
	}
	return strings.Join(what, ", ")
}

// process is the container's init process if it still runs, which its cgroup
// tells.
func (b bundle) process() int {
	text, err := b.Read(filepath.Base(b.InitPidFile()))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !bytes.Contains(groups, []byte(b.id)) {
		return 0
	}
	return pid
}

// removeBundle does what containerd does for a shim that has died: the action
// `delete`, and then the folder.
func removeBundle(l Leftover) error {
	b := oci.Bundle(l.Path)
	if socket := shims.Address(b); socket != "" && listened(socket) {
		return errors.New("its shim lives again")
	}
	program, err := b.Read("shim-binary-path")
	if err != nil {
		program = []byte("containerd-shim-cleat-v2")
	}
	var said bytes.Buffer
	err = cleanup.Delete(bootstrap.Call{
		Action: bootstrap.Delete, InvokedAs: strings.TrimSpace(string(program)),
		Namespace: l.Namespace, ID: l.ID, Bundle: l.Path,
		// Only to find a socket that the bundle does not name, and it names it.
		Address: filepath.Join(filepath.Dir(l.Path), "none"),
	}, io.Discard, &said)
	if err == nil && said.Len() > 0 {
		err = errors.New(strings.TrimSpace(said.String()))
	}
	if err != nil {
		return err
	}
	if mounts := mountsBelow(l.Path); len(mounts) > 0 {
		return fmt.Errorf("%s is still mounted", mounts[0])
	}
	// Nobody takes it for a bundle while it is removed.
	hidden := filepath.Join(filepath.Dir(l.Path), "."+l.ID)
	if err := os.Rename(l.Path, hidden); err != nil {
		return err
	}
	return os.RemoveAll(hidden)
}

// mountsBelow are the mount points at and below a folder.
func mountsBelow(dir string) []string {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return []string{dir} // for all we know
	}
	var points []string
	for _, m := range mounts {
		points = append(points, m.Mountpoint)
	}
	slices.Sort(points)
	return points
}
