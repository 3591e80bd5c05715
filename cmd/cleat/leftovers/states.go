package leftovers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/cgroup"
	"github.com/cleatrun/cleat/oci/driver"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/containerd/go-runc"
	"github.com/prometheus/procfs"
)

// runtimeLimit bounds an OCI runtime that is asked for a container's state.
const runtimeLimit = 5 * time.Second

// states are what OCI runtimes keep of containers whose bundle is gone: nobody
// asks the runtime to delete them any more, and there can be no other container
// of that id. What the files mean is the runtime's business, so it is asked.
//
// The bundle that the runtime names tells whose a container is: those that were
// made by hand have theirs elsewhere than below a folder of containerd's.
func (s Search) states(ctx context.Context, bundles []bundle) []Leftover {
	var found []Leftover
	for _, root := range s.roots(bundles) {
		for _, namespace := range names(root) {
			if bootstrap.ValidName(namespace) != nil || s.Namespace != "" && namespace != s.Namespace {
				continue
			}
			for _, id := range names(filepath.Join(root, namespace)) {
				has := func(b bundle) bool { return b.namespace == namespace && b.id == id }
				if bootstrap.ValidName(id) != nil || slices.ContainsFunc(bundles, has) {
					continue
				}
				if l, ok := s.state(ctx, root, namespace, id); ok {
					found = append(found, l)
				}
			}
		}
	}
	return found
}

// roots are the folders in which runtimes keep state, with one for each namespace.
// Clients can choose others than those of the configuration, and bundles tell.
func (s Search) roots(bundles []bundle) []string {
	roots := append([]string{oci.DefaultRoot}, s.Roots...)
	for _, o := range s.Runtimes {
		roots = append(roots, o.Root)
	}
	for _, b := range bundles {
		if o, err := b.ReadOptions(); err == nil {
			roots = append(roots, o.Root)
		}
	}
	roots = slices.DeleteFunc(roots, func(root string) bool { return !filepath.IsAbs(root) })
	slices.Sort(roots)
	return slices.Compact(roots)
}

// state finds out about one: whether there is a runtime that knows the container,
// and nobody else who does.
func (s Search) state(ctx context.Context, root, namespace, id string) (Leftover, bool) {
	for _, runtime := range s.Runtimes {
		runtime.Root = root
		l := Leftover{Kind: State, Path: filepath.Join(root, namespace, id), Namespace: namespace, ID: id, runtime: &runtime}
		c, err := l.container(ctx)
		if err != nil {
			continue
		}
		if !orphaned(c, namespace) || s.served(ctx, c, namespace) {
			return l, false
		}
		l.Why = "its bundle is gone"
		if pids := processes(c); len(pids) > 0 {
			l.Why += fmt.Sprintf(", its process %d still runs", pids[0])
		}
		return l, true
	}
	return Leftover{}, false
}

// container is what the runtime tells of it.
func (l Leftover) container(ctx context.Context) (*runc.Container, error) {
	ctx, cancel := context.WithTimeout(runc.WithExtraEnv(ctx, l.runtime.Env...), runtimeLimit)
	defer cancel()
	r := runc.Runc{Command: l.runtime.BinaryName, Root: filepath.Dir(l.Path), ExtraArgs: l.runtime.Args}
	c, err := r.State(ctx, l.ID)
	if err == nil && c.ID != l.ID {
		err = fmt.Errorf("asked for %s, it tells of %s", l.ID, c.ID)
	}
	return c, err
}

// orphaned tells whether a container was one of containerd's, and its bundle is
// gone. A folder of containerd's that is not to be seen from here says nothing.
func orphaned(c *runc.Container, namespace string) bool {
	folder, name := filepath.Split(c.Bundle)
	folder = filepath.Clean(folder)
	if name != c.ID || filepath.Base(folder) != namespace || filepath.Base(filepath.Dir(folder)) != tasks {
		return false
	}
	if _, err := os.Stat(filepath.Dir(folder)); err != nil {
		return false
	}
	_, err := os.Lstat(c.Bundle)
	return errors.Is(err, fs.ErrNotExist)
}

// served tells whether a shim that runs serves the container, or may: those of
// another make, and those that do not answer, do not tell what they serve.
func (s Search) served(ctx context.Context, c *runc.Container, namespace string) bool {
	return slices.ContainsFunc(s.Live, func(live *shims.Shim) bool {
		if live.Namespace != namespace {
			return false
		}
		ids, err := live.Served(ctx, s.Limit)
		return err != nil || slices.Contains(ids, c.ID) || live.ID == c.ID
	})
}

// processes are those that still run of a container: its init process, as the
// runtime tells, and all that is in a cgroup of its name.
func processes(c *runc.Container) (pids []int) {
	if c.Status != "stopped" {
		pids = append(pids, c.Pid)
	}
	all, _ := procfs.AllProcs()
	for _, p := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err != nil || !cgroup.Bears(string(text), c.ID) {
			continue
		}
		// One that has ended may wait for its parent; if only its first thread has,
		// it has others.
		if stat, err := p.Stat(); err == nil && (stat.State != "Z" || stat.NumThreads > 1) {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// removeState has the runtime delete a container of which nothing runs. While it
// is there none can be made anew under its id.
func removeState(l Leftover) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*runtimeLimit)
	defer cancel()
	c, err := l.container(ctx)
	if err != nil {
		return err
	}
	if !orphaned(c, l.Namespace) {
		return errors.New("it has a bundle again")
	}
	if pids := processes(c); len(pids) > 0 {
		return fmt.Errorf("its process %d still runs, and is for you to end", pids[0])
	}
	if err := driver.New(oci.Bundle(c.Bundle), l.Namespace, *l.runtime).Delete(ctx, l.ID, true); err != nil {
		return err
	}
	if _, err := os.Lstat(l.Path); !errors.Is(err, fs.ErrNotExist) {
		return errors.New("the runtime has left it")
	}
	return nil
}
