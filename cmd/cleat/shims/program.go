package shims

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Program is the file that a shim runs, and the one that is installed now where
// it was found when the shim was started.
type Program struct {
	// Name is by what it was called: the path of the installed file.
	Name string
	// Running is the file that runs; Gone tells that it has no name any more.
	Running string
	Gone    bool `json:",omitempty"`
	// Pending tells that another program of cleat is installed, which an upgrade
	// would run; Foreign that one is which is none of cleat's; Missing that none is.
	// Installed is the release of the pending one, as far as it tells.
	Pending   bool   `json:",omitempty"`
	Installed string `json:",omitempty"`
	Foreign   bool   `json:",omitempty"`
	Missing   bool   `json:",omitempty"`
}

// The main packages of programs, as Go records them in each.
const (
	ourMain   = "github.com/cleatrun/cleat/cmd/containerd-shim-cleat-v2"
	stockMain = "github.com/containerd/containerd/"
)

// programs looks at files, at each once. Its methods may be called concurrently.
type programs struct {
	mu    sync.Mutex // guards what follows
	kinds map[file]Kind
	sums  map[file][]byte
	said  map[file]string
}

// file is one, whatever its name. The time is for one that is written over.
type file struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

func newPrograms() *programs {
	return &programs{kinds: map[file]Kind{}, sums: map[file][]byte{}, said: map[file]string{}}
}

// identify stats a file through f.
func identify(f *os.File) (file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return file{}, err
	}
	return file{uint64(st.Dev), st.Ino, st.Size, st.Ctim}, nil
}

// kind tells whose program a file is.
func (p *programs) kind(f *os.File) Kind {
	id, err := identify(f)
	if err != nil {
		return Other
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if kind, known := p.kinds[id]; known {
		return kind
	}
	kind := Other
	if info, err := buildinfo.Read(f); err == nil {
		switch {
		case info.Path == ourMain:
			kind = Cleat
		case strings.HasPrefix(info.Path, stockMain):
			kind = Stock
		}
	}
	p.kinds[id] = kind
	return kind
}

// same tells whether two files hold the same program.
func (p *programs) same(a, b *os.File) bool {
	one, err := identify(a)
	if err != nil {
		return false
	}
	other, err := identify(b)
	if err != nil || one.size != other.size {
		return false
	}
	return one == other || bytes.Equal(p.sum(one, a), p.sum(other, b))
}

func (p *programs) sum(id file, f *os.File) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sum, known := p.sums[id]; known {
		return sum
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(f, 0, id.size)); err != nil {
		return nil
	}
	p.sums[id] = hash.Sum(nil)
	return p.sums[id]
}

// Trusted tells whether a program can be run that others name: it is if nobody
// can change it but root and this user. What is run is to be the open file.
func Trusted(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o002 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("others than root can change %s, which is not run", f.Name())
	}
	return nil
}

// Command runs an open program, whatever has become of its name.
func Command(ctx context.Context, f *os.File, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), args...)
	cmd.Args[0] = f.Name()
	return cmd
}

// release asks a program of ours for its release, if it can be trusted.
func (p *programs) release(ctx context.Context, f *os.File) string {
	id, err := identify(f)
	if err != nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if release, known := p.said[id]; known {
		return release
	}
	p.said[id] = ""
	if Trusted(f) != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	out, err := Command(ctx, f, "-v").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if after, ok := strings.CutPrefix(strings.TrimSpace(line), "Version:"); ok {
			p.said[id] = strings.TrimSpace(after)
		}
	}
	return p.said[id]
}

// releaseLimit bounds a program that tells its release.
const releaseLimit = 2 * time.Second

// look fills in what there is to know of the program of a process, and returns
// whose it is.
func (p *programs) look(ctx context.Context, s *Shim) {
	s.Program.Name = s.Process.Args[0]
	link, err := os.Readlink(procPath(s.PID, "exe"))
	if err == nil {
		s.Program.Running, s.Program.Gone = strings.CutSuffix(link, " (deleted)")
	}
	running, err := os.Open(procPath(s.PID, "exe"))
	if err != nil {
		s.Kind = byName(s.Program.Name)
		return
	}
	defer running.Close()
	s.Kind = p.kind(running)
	if s.Kind != Cleat || !filepath.IsAbs(s.Program.Name) {
		return
	}
	installed, err := openFor(s.PID, s.Program.Name)
	if err != nil {
		s.Program.Missing = errors.Is(err, fs.ErrNotExist)
		return
	}
	defer installed.Close()
	if !p.same(running, installed) {
		s.Program.Pending = p.kind(installed) == Cleat
		s.Program.Foreign = !s.Program.Pending
	}
	if s.Program.Pending && SameMounts(s.PID) {
		s.Program.Installed = p.release(ctx, installed)
	}
}

// byName guesses whose program it is when the file may not be read.
func byName(name string) Kind {
	if strings.Contains(filepath.Base(name), "-cleat-") {
		return Cleat
	}
	return Other
}

// openFor opens a program as a process names it, which may have another root.
func openFor(pid int, path string) (*os.File, error) {
	if SameMounts(pid) {
		return openProgram(path)
	}
	f, err := openBelow(pid, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return regular(f)
}

// openBelow opens a file below the root of a process, and never one outside,
// whatever links there are.
func openBelow(pid int, path string, flags uint64) (*os.File, error) {
	root, err := os.Open(procPath(pid, "root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openProgram opens a regular file, and does not wait for the writer of a FIFO.
func openProgram(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return regular(f)
}

func regular(f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// KindOf tells whose shim a file is, and refuses what is no program at all.
func KindOf(path string) (Kind, error) {
	f, err := openProgram(path)
	if err != nil {
		return Other, err
	}
	defer f.Close()
	info, err := buildinfo.Read(f)
	if err != nil {
		return Other, fmt.Errorf("%s is no cleat: it is no program that Go has built", path)
	}
	if kind := newPrograms().kind(f); kind != Other {
		return kind, nil
	}
	return Other, fmt.Errorf("%s is no cleat: it is the program %s", path, info.Path)
}

// Runs tells whether a shim runs the program that is in a file.
func (s *Shim) Runs(path string) bool {
	if s.PID == 0 {
		return false
	}
	running, err := os.Open(procPath(s.PID, "exe"))
	if err != nil {
		return false
	}
	defer running.Close()
	other, err := openFor(s.PID, path)
	if err != nil {
		return false
	}
	defer other.Close()
	return s.programs.same(running, other)
}
