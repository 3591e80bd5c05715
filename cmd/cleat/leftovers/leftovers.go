// Package leftovers finds what dead shims have left on a host, and removes it:
// sockets on which nobody listens, bundles whose shim is gone with the processes,
// mounts and cgroups of their containers, and mounts, cgroups and OCI runtimes'
// state of bundles that are gone. containerd does the same for the shims that it knows; this is for
// what it does not, or did not get to.
//
// What a living shim uses is never one of them, nor what is of another make.
// What is about to be made or removed may look like one for a moment: Remove is
// for those that Find has found twice.
package leftovers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cleatrun/cleat/cmd/cleat/shims"
	"github.com/cleatrun/cleat/oci"
	"golang.org/x/sys/unix"
)

// Kind of a leftover.
type Kind string

const (
	Socket Kind = "socket"
	Bundle Kind = "bundle"
	Mount  Kind = "mount"
	Cgroup Kind = "cgroup"
	State  Kind = "state" // what an OCI runtime keeps of a container
)

// Leftover is one thing.
type Leftover struct {
	Kind Kind
	Path string
	// Namespace and ID of the container; a socket has none.
	Namespace, ID string `json:",omitempty"`
	// Why it is one, and what is still there of a container.
	Why string
	// changed is when it was last, by which it is told from another one in its place.
	changed unix.Timespec
	// runtime is the OCI runtime whose state it is.
	runtime *oci.Options
	// Foreign tells that it is of another make, and left alone.
	Foreign bool `json:",omitempty"`
}

// Search is where leftovers are looked for.
type Search struct {
	// Namespace is containerd's, or empty for all.
	Namespace string
	// SocketDirs are folders of sockets, States those of containerds, in which
	// bundles are.
	SocketDirs, States []string
	// Live are all shims of the host, and Limit is how long one may take to answer.
	Live  []*shims.Shim
	Limit time.Duration
	// Runtimes are the OCI runtimes whose state is looked for; Roots are folders in
	// which it may be besides their own and the usual one.
	Runtimes []oci.Options
	Roots    []string
}

// tasks is the folder of bundles below one of containerd's, with a folder for
// each namespace.
const tasks = "io.containerd.runtime.v2.task"

// StateOf is the folder of containerd's in which a shim has its bundle, empty if
// that is another kind of place.
func StateOf(s *shims.Shim) string {
	dir := filepath.Dir(filepath.Dir(s.Process.Cwd))
	if filepath.Base(dir) != tasks {
		return ""
	}
	return filepath.Dir(dir)
}

// bundle is one, and what is known of its shim.
type bundle struct {
	oci.Bundle
	namespace, id string
	socket        string // of its shim, if it tells
	dead          bool
	foreign       bool
}

// Find finds all there are.
func (s Search) Find(ctx context.Context) []Leftover {
	bundles := s.bundles(ctx)
	var found []Leftover
	for _, b := range bundles {
		if b.dead {
			found = append(found, Leftover{Kind: Bundle, Path: string(b.Bundle), Namespace: b.namespace, ID: b.id, Why: b.remains(), Foreign: b.foreign})
		}
	}
	found = append(found, s.sockets(ctx, bundles)...)
	found = append(found, s.mounts(bundles)...)
	found = append(found, s.cgroups(bundles)...)
	found = append(found, s.states(ctx, bundles)...)
	found = slices.DeleteFunc(found, func(l Leftover) bool { return s.Namespace != "" && l.Namespace != "" && l.Namespace != s.Namespace })
	for i := range found {
		found[i].changed = changed(found[i].Path)
	}
	slices.SortStableFunc(found, func(a, b Leftover) int { return cmp.Compare(a.Path, b.Path) })
	return found
}

// changed is when a file or folder was; zero for none, as of a cgroup's path.
func changed(path string) unix.Timespec {
	var st unix.Stat_t
	unix.Lstat(path, &st)
	return st.Ctim
}

// Again are those of earlier that are still there, and have not changed.
func (s Search) Again(ctx context.Context, earlier []Leftover) []Leftover {
	now := s.Find(ctx)
	return slices.DeleteFunc(now, func(l Leftover) bool {
		return !slices.ContainsFunc(earlier, func(e Leftover) bool { return e.Kind == l.Kind && e.Path == l.Path && e.changed == l.changed })
	})
}

// Settle is how long one has to be there to be one: longer than what containerd
// and shims do between two steps.
const Settle = time.Second

// Remove removes one. What it holds of the host goes first, so that an error
// leaves it to be found again.
func (l Leftover) Remove() error {
	if l.Foreign {
		return errors.New("it is of another make, and left alone")
	}
	if changed(l.Path) != l.changed {
		return errors.New("it has just changed")
	}
	switch l.Kind {
	case Socket:
		return removeSocket(l.Path)
	case Bundle:
		return removeBundle(l)
	case Mount:
		return removeMount(l.Path)
	case Cgroup:
		return removeCgroup(l)
	case State:
		return removeState(l)
	}
	return fmt.Errorf("nothing is known of a %s", l.Kind)
}

// listened tells whether somebody listens on a socket, or may.
func listened(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	// EAGAIN: its backlog is full. EACCES: it is not for us to know.
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}

// alive tells whether a living shim has that socket, whose file may be gone.
func (s Search) alive(socket string) bool {
	return slices.ContainsFunc(s.Live, func(l *shims.Shim) bool { return l.Socket == socket })
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		if e.IsDir() {
			list = append(list, e.Name())
		}
	}
	return list
}
