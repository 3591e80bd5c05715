package stdio

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Bundles lie deep, and a socket's path has 107 bytes.
func TestConsoleSocketInALongFolder(t *testing.T) {
	for _, length := range []int{maxSocketPath - 20, maxSocketPath - 11, maxSocketPath - 10, maxSocketPath, 400} {
		leavesNothing(t)
		dir := t.TempDir()
		for len(dir) < length {
			dir = filepath.Join(dir, strings.Repeat("x", min(max(length-len(dir)-1, 1), 200)))
		}
		must(t, "make folder", os.MkdirAll(dir, 0o700))
		o := options(t)
		o.Dir = dir
		out := mkfifo(t, t.TempDir(), "out")
		s := opened(t, Spec{Stdout: out, Terminal: true}, o)
		if socket := s.ConsoleSocket(); len(socket) > maxSocketPath {
			t.Errorf("the socket's path has %d bytes: %s", len(socket), socket)
		}
		client := reader(t, out)
		launch(t, s, "echo hello").ended()
		next(t, client, "hello\n")
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s is left", left)
		}
		s.Close()
	}
}

// A shim that was killed leaves its sockets.
func TestConsoleSocketReplacesALeftOne(t *testing.T) {
	leavesNothing(t)
	o := options(t)
	first := opened(t, Spec{Terminal: true}, o)
	left := first.ConsoleSocket()
	must(t, "keep the socket", os.Rename(left, left+".kept"))
	first.Close()
	must(t, "leave the socket", os.Rename(left+".kept", left))
	consoles.Add(^uint64(0)) // as a new process counts
	s := opened(t, Spec{Terminal: true}, o)
	if s.ConsoleSocket() != left {
		t.Fatalf("the socket is %s, not the one that was left", s.ConsoleSocket())
	}
	launch(t, s, "exit 0").ended()
	s.Close()
}

func TestConsoleSocketWithoutAFolderIsAnError(t *testing.T) {
	leavesNothing(t)
	o := options(t)
	for _, dir := range []string{"/no/such/folder", "/no/such/folder/" + strings.Repeat("x", 100)} {
		o.Dir = dir
		if _, err := Open(bounded(t), Spec{Terminal: true, Stdout: "file://" + t.TempDir() + "/log"}, o); err == nil || !strings.Contains(err.Error(), "console socket") {
			t.Errorf("error %v", err)
		}
	}
}

func TestOnlyATerminalIsTakenForOne(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(t *testing.T, socket string)
	}{
		{"hangs up", func(t *testing.T, socket string) {
			conn, err := net.Dial("unix", socket)
			must(t, "connect", err)
			conn.Close()
		}},
		{"no descriptor", func(t *testing.T, socket string) { sendConsole(t, socket, nil) }},
		{"a pipe", func(t *testing.T, socket string) {
			r, w, err := os.Pipe()
			must(t, "make pipe", err)
			defer r.Close()
			defer w.Close()
			sendConsole(t, socket, unix.UnixRights(int(r.Fd()), int(w.Fd())))
		}},
		{"credentials", func(t *testing.T, socket string) {
			sendConsole(t, socket, unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid())}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			leavesNothing(t)
			o := options(t)
			s := opened(t, Spec{Terminal: true, Stdin: mkfifo(t, t.TempDir(), "in")}, o)
			c.send(t, s.ConsoleSocket())
			if err := s.Attach(bounded(t)); err == nil || !strings.Contains(err.Error(), "terminal") {
				t.Errorf("error %v", err)
			}
			must(t, "close", s.Close())
			if left, _ := os.ReadDir(o.Dir); len(left) != 0 {
				t.Errorf("%s is left", left)
			}
		})
	}
}

func TestMoreDescriptorsThanTheTerminalAreClosed(t *testing.T) {
	leavesNothing(t)
	s := opened(t, Spec{Terminal: true}, options(t))
	master, slave := newPTY(t)
	sendConsole(t, s.ConsoleSocket(), unix.UnixRights(int(master.Fd()), int(slave.Fd()), int(slave.Fd())))
	master.Close()
	slave.Close()
	must(t, "attach", s.Attach(bounded(t)))
	s.Exited()
	// With a slave left open there would be no end.
	must(t, "drain", s.Drain(bounded(t)))
	must(t, "close", s.Close())
}

// A runtime that forgets to send the terminal, stock waits for without limit.
func TestTerminalThatDoesNotComeIsNotWaitedForForever(t *testing.T) {
	connected := func(t *testing.T, s *Streams) {
		conn, err := net.Dial("unix", s.ConsoleSocket())
		must(t, "connect", err)
		t.Cleanup(func() { conn.Close() })
	}
	for _, c := range []struct {
		name string
		come func(t *testing.T, s *Streams)
	}{
		{"nobody", func(*testing.T, *Streams) {}},
		{"nothing", connected},
	} {
		t.Run(c.name+" until the limit", func(t *testing.T) {
			leavesNothing(t)
			s := opened(t, Spec{Terminal: true}, options(t))
			c.come(t, s)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := s.Attach(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			must(t, "close", s.Close())
		})
	}
	t.Run("nobody until it is closed", func(t *testing.T) {
		leavesNothing(t)
		s := opened(t, Spec{Terminal: true}, options(t))
		failed := make(chan error, 1)
		go func() { failed <- s.Attach(bounded(t)) }()
		must(t, "close", s.Close())
		if err := receive(t, "the end of Attach", failed); err == nil {
			t.Error("a terminal was attached to closed streams")
		}
	})
}

// A size that is set before there is a terminal is the terminal's from its
// first moment: CRI sends it before Start.
func TestSizeOfTheTerminal(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	out := mkfifo(t, dir, "out")
	s := opened(t, Spec{Stdout: out, Terminal: true}, options(t))
	must(t, "resize before", s.Resize(120, 40))
	client := reader(t, out)
	master, slave := newPTY(t)
	defer slave.Close()
	sendConsole(t, s.ConsoleSocket(), unix.UnixRights(int(master.Fd())))
	master.Close()
	must(t, "attach", s.Attach(bounded(t)))
	expect := func(width, height uint16) {
		t.Helper()
		size, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
		if err != nil || size.Col != width || size.Row != height {
			t.Errorf("size %+v and error %v, want %dx%d", size, err, width, height)
		}
		if s := s.State(); s.Width != width || s.Height != height {
			t.Errorf("the state says %dx%d, want %dx%d", s.Width, s.Height, width, height)
		}
	}
	expect(120, 40)
	must(t, "resize after", s.Resize(80, 25))
	expect(80, 25)
	must(t, "resize to the limit", s.Resize(65535, 65535))
	expect(65535, 65535)
	slave.WriteString("hello\n")
	next(t, client, "hello\n")
	slave.Close()
	s.Exited()
	must(t, "drain", s.Drain(bounded(t)))
	must(t, "resize what has ended", s.Resize(1, 1))
	must(t, "close", s.Close())
	must(t, "resize what is closed", s.Resize(1, 1))
}

func TestSizeWithoutATerminalIsNoError(t *testing.T) {
	leavesNothing(t)
	s := opened(t, Spec{}, options(t))
	must(t, "resize", s.Resize(80, 25))
	launch(t, s, "exit 0").ended()
	must(t, "resize", s.Resize(80, 25))
	s.Close()
}

// Closing the streams of a process that goes on hangs its terminal up.
func TestCloseHangsTheTerminalUp(t *testing.T) {
	for _, in := range []string{"", "in"} {
		leavesNothing(t)
		if in != "" {
			in = mkfifo(t, t.TempDir(), in)
		}
		s := opened(t, Spec{Stdin: in, Terminal: true}, options(t))
		p := launch(t, s, "exec sleep 1000")
		must(t, "close", s.Close())
		p.ended()
		if text := p.cmd.ProcessState.String(); text != "signal: hangup" {
			t.Errorf("the process ended with %q", text)
		}
	}
}

// A descriptor that leaks into another process keeps a terminal or a FIFO open
// for ever.
func TestNothingOfTheStreamsIsInherited(t *testing.T) {
	leavesNothing(t)
	before := descriptorsOpen(t)
	dir := t.TempDir()
	o := options(t)
	o.Direct = true
	in, out := mkfifo(t, dir, "in"), mkfifo(t, dir, "out")
	for _, spec := range []Spec{
		{Stdin: in, Stdout: out, Terminal: true},
		{Stdin: in, Stdout: out, Stderr: "binary://" + script(t, loggerScript) + "?out=" + dir + "/log"},
		{Stdin: in, Stdout: "file://" + dir + "/file"},
	} {
		launch(t, opened(t, spec, o), "exec sleep 1000")
		opened(t, spec, o) // and before the process is there
	}
	open := slices.DeleteFunc(descriptorsOpen(t), func(line string) bool { return slices.Contains(before, line) })
	if len(open) < 20 {
		t.Errorf("only %d descriptors are open", len(open))
	}
	for _, line := range open {
		fields := strings.Fields(line)
		flags, err := strconv.ParseInt(fields[len(fields)-1], 8, 64)
		if err != nil || flags&unix.O_CLOEXEC == 0 {
			t.Errorf("descriptor %s would be inherited", line)
		}
	}
}
