package stdio

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// things are what may stand in the place of a FIFO.
func things(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, "write file", os.WriteFile(dir+"/regular", []byte("text"), 0o600))
	must(t, "make folder", os.Mkdir(dir+"/folder", 0o700))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/socket", Net: "unix"})
	must(t, "listen", err)
	t.Cleanup(func() { l.Close() })
	mkfifo(t, dir, "fifo")
	for link, to := range map[string]string{"link to FIFO": "fifo", "link to file": "regular", "link to nothing": "missing", "link to itself": "link to itself", "link to device": "/dev/null"} {
		must(t, "make link", os.Symlink(to, filepath.Join(dir, link)))
	}
	return dir
}

// Opening a regular file for a FIFO would have the container's output on a path
// that the client only believed to be its own; a device can do anything.
func TestOnlyAFIFOIsTakenForOne(t *testing.T) {
	leavesNothing(t)
	dir := things(t)
	for _, c := range []struct {
		path  string
		class error
	}{
		{dir + "/fifo", nil},
		{dir + "/link to FIFO", nil},
		{dir + "/regular", errdefs.ErrInvalidArgument},
		{dir + "/folder", errdefs.ErrInvalidArgument},
		{dir + "/socket", errdefs.ErrInvalidArgument},
		{dir + "/link to file", errdefs.ErrInvalidArgument},
		{dir + "/link to device", errdefs.ErrInvalidArgument},
		{dir + "/link to itself", errdefs.ErrInvalidArgument},
		{dir + "/link to nothing", errdefs.ErrNotFound},
		{"/dev/null", errdefs.ErrInvalidArgument},
		{dir + "/missing", errdefs.ErrNotFound},
		{dir + "/missing/fifo", errdefs.ErrNotFound},
		{dir + "/regular/fifo", errdefs.ErrInvalidArgument},
		{dir + "/" + strings.Repeat("x", 256), errdefs.ErrInvalidArgument},
	} {
		for stream, spec := range map[string]Spec{
			"stdin": {Stdin: c.path, Stdout: dir + "/fifo"}, "stdout": {Stdout: c.path}, "stderr": {Stdout: dir + "/fifo", Stderr: c.path},
			"stdin of a terminal": {Stdin: c.path, Terminal: true}, "stdout of a terminal": {Stdout: c.path, Terminal: true},
		} {
			for _, direct := range []bool{true, false} {
				o := options(t)
				o.Direct = direct
				s, err := Open(bounded(t), spec, o)
				switch {
				case c.class == nil && err != nil, !errors.Is(err, c.class):
					t.Errorf("%s %s: error %v, want class %v", stream, c.path, err, c.class)
				case err != nil && (!strings.Contains(err.Error(), c.path) || !strings.HasPrefix(err.Error(), stream[:5])):
					t.Errorf("%s: error %q does not name the stream and %s", stream, err, c.path)
				}
				if err == nil {
					s.Close()
				}
			}
		}
	}
	fileHolds(t, dir+"/regular", "text")
}

func TestOnlyAFileIsAppendedTo(t *testing.T) {
	leavesNothing(t)
	dir := things(t)
	for _, c := range []struct {
		path  string
		class error
	}{
		{dir + "/regular", nil},
		{dir + "/new/folder/file", nil},
		{dir + "/link to file", nil},
		{dir + "/link to nothing", nil},
		{"/dev/null", nil},
		{dir + "/fifo", errdefs.ErrInvalidArgument},
		{dir + "/folder", errdefs.ErrInvalidArgument},
		{dir + "/socket", errdefs.ErrInvalidArgument},
		{dir + "/link to itself", errdefs.ErrInvalidArgument},
		{dir + "/regular/file", errdefs.ErrInvalidArgument},
		{dir + "/" + strings.Repeat("x", 256), errdefs.ErrInvalidArgument},
	} {
		for _, terminal := range []bool{false, true} {
			s, err := Open(bounded(t), Spec{Stdout: "file://" + c.path, Terminal: terminal}, options(t))
			if !errors.Is(err, c.class) {
				t.Errorf("%s: error %v, want class %v", c.path, err, c.class)
			}
			if err == nil {
				s.Close()
			} else if !strings.Contains(err.Error(), filepath.Dir(c.path)) {
				t.Errorf("error %q does not name %s", err, c.path)
			}
		}
	}
	// Also with a reader, which lets the FIFO be opened for writing.
	hold, err := os.OpenFile(dir+"/fifo", os.O_RDWR, 0)
	must(t, "open FIFO", err)
	defer hold.Close()
	if _, err := Open(bounded(t), Spec{Stdout: "file://" + dir + "/fifo"}, options(t)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a FIFO that is read was taken for a file: %v", err)
	}
}

// Every step of opening is made to fail once, for want of a descriptor.
func TestNoFailureLeavesAnythingOpen(t *testing.T) {
	dir := t.TempDir()
	in, out, errs := mkfifo(t, dir, "in"), mkfifo(t, dir, "out"), mkfifo(t, dir, "err")
	logger := "binary-v2://" + script(t, loggerScript) + "?out=" + dir + "/log&ready=byte"
	for _, c := range []struct {
		name   string
		spec   Spec
		direct bool
	}{
		{"nothing", Spec{}, false},
		{"direct FIFOs", Spec{Stdin: in, Stdout: out, Stderr: errs}, true},
		{"spliced FIFOs", Spec{Stdin: in, Stdout: out, Stderr: errs}, false},
		{"files", Spec{Stdin: in, Stdout: "file://" + dir + "/file", Stderr: "file://" + dir + "/file"}, false},
		{"logger of both", Spec{Stdin: in, Stdout: logger, Stderr: logger}, false},
		{"two loggers", Spec{Stdin: in, Stdout: logger, Stderr: logger + "&other"}, false},
		{"logger and FIFO", Spec{Stdout: logger, Stderr: errs}, false},
		{"terminal", Spec{Stdin: in, Stdout: out, Terminal: true}, false},
		{"terminal with a logger", Spec{Stdin: in, Stdout: logger, Terminal: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			leavesNothing(t)
			o := options(t)
			o.Direct = c.direct
			before := descriptorsOpen(t)
			for room := 0; ; room++ {
				s, err := openWith(t, room, c.spec, o)
				if err == nil {
					t.Logf("%d descriptors are enough", room)
					s.Close()
					return
				}
				must(t, "settle", Settle(bounded(t)))
				eventually(t, fmt.Sprintf("all is closed after: %v", err), func() bool { return len(descriptorsOpen(t)) <= len(before) })
				if left, _ := os.ReadDir(o.Dir); len(left) != 0 {
					t.Errorf("%s is left after: %v", left, err)
				}
				if room > 100 {
					t.Fatal(err)
				}
			}
		})
	}
}

// openWith opens streams with that much room for descriptors.
func openWith(t *testing.T, room int, spec Spec, o Options) (*Streams, error) {
	t.Helper()
	var usual unix.Rlimit
	must(t, "get limit", unix.Getrlimit(unix.RLIMIT_NOFILE, &usual))
	tight := usual
	// A limit is on the number, so the gaps between those in use count as room.
	for tight.Cur = 0; ; tight.Cur++ {
		if _, err := unix.FcntlInt(uintptr(tight.Cur), unix.F_GETFD, 0); err == nil {
			continue
		}
		if room--; room < 0 {
			break
		}
	}
	must(t, "set limit", unix.Setrlimit(unix.RLIMIT_NOFILE, &tight))
	defer func() { must(t, "set limit", unix.Setrlimit(unix.RLIMIT_NOFILE, &usual)) }()
	return Open(bounded(t), spec, o)
}

// A process that could not be launched, or whose terminal could not be attached,
// leaves streams that nothing was done with.
func TestStreamsThatWereNeverAttachedLeaveNothing(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	in, out := mkfifo(t, dir, "in"), mkfifo(t, dir, "out")
	logger := "binary://" + script(t, loggerScript) + "?out=" + dir + "/log"
	for _, spec := range []Spec{
		{Stdin: in, Stdout: out}, {Stdin: in, Stdout: "file://" + dir + "/file"}, {Stdin: in, Stdout: logger, Stderr: logger},
		{Stdin: in, Stdout: out, Terminal: true}, {Stdin: in, Stdout: logger, Terminal: true},
	} {
		s := opened(t, spec, options(t))
		must(t, "drain", s.Drain(bounded(t)))
		s.Exited()
		must(t, "close", s.Close())
		if err := s.Attach(bounded(t)); err == nil {
			t.Error("closed streams were attached")
		}
		must(t, "open stdin of closed streams", s.OpenStdin())
		must(t, "close stdin of closed streams", s.CloseStdin())
	}
}

// With a client that opens the FIFO itself before the shim does, there is no
// moment in which it would read an end.
func TestClientThatCameFirstReadsNoEarlyEnd(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		out := mkfifo(t, t.TempDir(), "out")
		got := make(chan string, 1)
		go func() {
			f, err := os.Open(out) // waits for a writer
			if err != nil {
				got <- err.Error()
				return
			}
			defer f.Close()
			got <- <-all(f)
		}()
		eventually(t, "the client waits in open", func() bool { return waitsForFIFO(t) })
		o := options(t)
		o.Direct = w.direct
		s := opened(t, Spec{Stdout: out, Terminal: w.terminal}, o)
		launch(t, s, "echo hello").ended()
		if got := receive(t, "the end of the output", got); got != "hello\n" {
			t.Errorf("got %q", got)
		}
		must(t, "close", s.Close())
	})
}
