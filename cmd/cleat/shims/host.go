package shims

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/cleatrun/cleat/shim/control/client"
	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Host is where shims are looked for.
type Host struct {
	// Namespace is containerd's, or empty for all.
	Namespace string
	// SocketDirs are the folders in which sockets of shims are looked for that are
	// not to be seen in /proc; those that containerd's shims use if there are none.
	SocketDirs []string
	// Limit is how long a shim may take to answer.
	Limit time.Duration
}

// atOnce is how many shims are asked at the same time.
const atOnce = 16

// Find finds all shims and asks ours who they are. They are in order of
// namespace and name.
func (h Host) Find(ctx context.Context) ([]*Shim, error) {
	found, err := h.processes(ctx)
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, s := range found {
		if s.Kind == Cleat && h.asksOf(s) {
			group.Go(func() error { s.introduce(ctx, h.Limit); return nil })
		}
	}
	group.Wait()
	found = slices.DeleteFunc(found, func(s *Shim) bool { return s.Err != nil && s.Ended() }) // meanwhile
	found = append(found, h.hidden(ctx, found)...)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(s *Shim) bool { return !h.asksOf(s) })
	slices.SortFunc(found, func(a, b *Shim) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID), cmp.Compare(a.PID, b.PID))
	})
	return found, nil
}

// asksOf tells whether a shim is of the namespace that is asked for.
func (h Host) asksOf(s *Shim) bool { return h.Namespace == "" || s.Namespace == h.Namespace }

// processes finds those that /proc has.
func (h Host) processes(ctx context.Context) ([]*Shim, error) {
	all, err := procfs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	looked := newPrograms()
	sockets := map[string]map[uint64]string{} // by network namespace
	var found []*Shim
	for _, p := range all {
		args, err := p.CmdLine()
		if err != nil {
			continue // it has ended
		}
		namespace, id, ok := daemon(args)
		if !ok || p.PID == os.Getpid() {
			continue
		}
		s := &Shim{PID: p.PID, Namespace: namespace, ID: id, programs: looked}
		if s.Process, err = readProcess(p); err != nil || len(s.Process.Args) == 0 {
			continue
		}
		looked.look(ctx, s)
		network, _ := os.Readlink(procPath(p.PID, "ns", "net"))
		if sockets[network] == nil {
			sockets[network] = listeners(p.PID)
		}
		s.Socket = listening(p, sockets[network])
		found = append(found, s)
	}
	return copies(found), nil
}

// introduce asks a shim who it is.
func (s *Shim) introduce(ctx context.Context, limit time.Duration) {
	s.Err = s.Ask(ctx, limit, func(ctx context.Context, c *client.Client) error {
		info, err := c.Info(ctx)
		if err == nil {
			s.Info = &info
		}
		return err
	})
	if s.Err != nil {
		s.Silent = s.Err.Error()
	}
}

// hidden finds shims of ours that are not to be seen in /proc, by their sockets.
func (h Host) hidden(ctx context.Context, seen []*Shim) []*Shim {
	known := map[file]bool{}
	for _, s := range seen {
		if id, ok := socketFile(s.Socket); ok {
			known[id] = true
		}
	}
	var found []*Shim
	for _, dir := range h.Dirs() {
		for _, path := range Sockets(dir) {
			id, ok := socketFile(path)
			if !ok || known[id] {
				continue
			}
			known[id] = true
			s := &Shim{Kind: Cleat, Socket: path}
			s.introduce(ctx, h.Limit)
			if s.Info != nil {
				s.Namespace, s.ID = s.Info.Namespace, s.Info.ID
				found = append(found, s)
			}
		}
	}
	return found
}

// Dirs are the folders for sockets: those that were given, or where containerd's
// shims have them.
func (h Host) Dirs() []string {
	if len(h.SocketDirs) > 0 {
		return h.SocketDirs
	}
	dirs := []string{"/run/containerd/s"}
	if uid := os.Geteuid(); uid != 0 {
		id := strconv.Itoa(uid)
		if xdg := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(xdg) {
			dirs = append(dirs, filepath.Join(xdg, "containerd", "s"))
		}
		dirs = append(dirs, "/run/"+id+"/containerd/s", "/tmp/containerd-s-"+id)
	}
	return dirs
}

// Sockets are the paths of all sockets in a folder; none if there is no folder.
func Sockets(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var paths []string
	for _, entry := range entries {
		if entry.Type() == fs.ModeSocket {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths
}

func socketFile(path string) (file, bool) {
	var st unix.Stat_t
	if path == "" || unix.Lstat(path, &st) != nil {
		return file{}, false
	}
	return file{device: uint64(st.Dev), inode: st.Ino}, true
}
