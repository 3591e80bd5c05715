package stdio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// held is output that a background process of an ended one still holds.
type held struct {
	s   *Streams
	dir string
	p   *proc
}

// hold has a process leave one behind that holds its output and writes once more
// when the file "go" is there. It tells its exit status in the file "status".
func hold(t *testing.T, s *Streams) held {
	t.Helper()
	h := held{s: s, dir: t.TempDir()}
	h.p = launch(t, s, `trap "" HUP PIPE; `+untilThere+`
		(: >"$1.ready"; there "$1"; echo after; echo $? >"$1.tmp"; mv "$1.tmp" "$1.status") &
		there "$1.ready"; echo before`, "sh", h.dir+"/go")
	h.p.ended()
	t.Cleanup(func() { h.release(t) })
	return h
}

// release lets the background process write and end.
func (h held) release(t *testing.T) {
	t.Helper()
	h.p.signal(h.dir + "/go")
	eventually(t, "the end of the background process", func() bool {
		_, err := os.Stat(h.dir + "/go.status")
		return err == nil
	})
}

func (h held) drainsUntilItsContextEnds(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := h.s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("draining ended with %v before its output did", err)
	}
}

// Stock's Delete takes ten seconds when a grandchild holds the output, and may
// lose what came before.
func TestBackgroundProcessThatHoldsTheOutput(t *testing.T) {
	t.Run("spliced", func(t *testing.T) {
		leavesNothing(t)
		s, out := way{}.open(t)
		client := reader(t, out)
		h := hold(t, s)
		h.drainsUntilItsContextEnds(t)
		must(t, "close", s.Close())
		if got := receive(t, "the end of the output", all(client)); got != "before\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("file", func(t *testing.T) {
		leavesNothing(t)
		out := filepath.Join(t.TempDir(), "out")
		s := opened(t, Spec{Stdout: "file://" + out}, options(t))
		h := hold(t, s)
		h.drainsUntilItsContextEnds(t)
		must(t, "close", s.Close())
		fileHolds(t, out, "before\n")
		h.release(t)
		fileHolds(t, out, "before\n")
	})
	// The process has the client's FIFO: nothing that the shim does ends that,
	// and nothing has to.
	t.Run("direct", func(t *testing.T) {
		leavesNothing(t)
		s, out := way{direct: true}.open(t)
		client := reader(t, out)
		h := hold(t, s)
		must(t, "drain", s.Drain(bounded(t)))
		must(t, "close", s.Close())
		got := all(client)
		h.release(t)
		if got := receive(t, "the end of the output", got); got != "before\nafter\n" {
			t.Errorf("got %q", got)
		}
	})
	// A terminal is hung up when the leader of its session ends, so output that
	// a background process could still write goes nowhere.
	t.Run("terminal", func(t *testing.T) {
		leavesNothing(t)
		s, out := way{terminal: true}.open(t)
		client := reader(t, out)
		hold(t, s)
		must(t, "drain", s.Drain(bounded(t)))
		if got := receive(t, "the end of the output", all(client)); got != "before\n" {
			t.Errorf("got %q", got)
		}
		must(t, "close", s.Close())
	})
	// The logger is not ended for it: what comes in its grace is still logged.
	t.Run("logger", func(t *testing.T) {
		leavesNothing(t)
		out := filepath.Join(t.TempDir(), "out")
		s := opened(t, Spec{Stdout: "binary://" + script(t, loggerScript) + "?out=" + out}, options(t))
		h := hold(t, s)
		h.drainsUntilItsContextEnds(t)
		must(t, "close", s.Close())
		h.release(t)
		must(t, "settle", Settle(bounded(t)))
		fileHolds(t, out+".stdout", "before\nafter\n")
	})
}

// slowWays are those where bytes wait in the shim's own pipe for a client that
// does not read; a background process holds a terminal open after its hang-up.
var slowWays = []struct {
	name       string
	terminal   bool
	background string
}{{name: "spliced"}, {name: "terminal", terminal: true}, {"hung-up terminal", true, `(trap "" HUP; sleep 100) & echo $! >"$1.pid";`}}

// A client that reads slowly gets all of it also when its container is deleted
// meanwhile.
func TestSlowClientGetsAllAfterClose(t *testing.T) {
	for _, w := range slowWays {
		t.Run(w.name, func(t *testing.T) {
			leavesNothing(t)
			s, out := way{terminal: w.terminal}.open(t)
			client := smallReader(t, out)
			dir := t.TempDir()
			p := launch(t, s, w.background+`head -c "$0" /dev/zero; echo end`, fmt.Sprint(slowSize), dir+"/background")
			t.Cleanup(func() { killIn(t, dir+"/background.pid") })
			p.ended()
			must(t, "close", s.Close())

			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := Settle(ctx); err == nil {
				t.Error("all was settled before the client has read")
			}
			got := receive(t, "the end of the output", all(client))
			if len(got) != slowSize+4 || !strings.HasSuffix(got, "end\n") {
				t.Errorf("%d bytes of %d came, the last are %q", len(got), slowSize+4, got[max(0, len(got)-10):])
			}
			must(t, "settle", Settle(bounded(t)))
		})
	}
}

// slowSize is more than a small FIFO takes, and less than a process waits for.
const slowSize = 4096 + 3000

// smallReader opens the client's end of a FIFO and makes it small.
func smallReader(t *testing.T, path string) *os.File {
	t.Helper()
	f := reader(t, path)
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, 4096)
	must(t, "make the FIFO small", err)
	return f
}

// killIn kills the process whose pid is in a file, if there is one.
func killIn(t *testing.T, path string) {
	var pid int
	if text, err := os.ReadFile(path); err == nil {
		fmt.Sscan(string(text), &pid)
	}
	if pid > 0 {
		unix.Kill(pid, unix.SIGKILL)
	}
}

func TestClientThatGoesEndsWhatIsLeftOfClosedStreams(t *testing.T) {
	for _, w := range slowWays {
		t.Run(w.name, func(t *testing.T) {
			leavesNothing(t)
			s, out := way{terminal: w.terminal}.open(t)
			client := smallReader(t, out)
			dir := t.TempDir()
			p := launch(t, s, w.background+`head -c "$0" /dev/zero`, fmt.Sprint(slowSize), dir+"/background")
			t.Cleanup(func() { killIn(t, dir+"/background.pid") })
			p.ended()
			must(t, "close", s.Close())
			client.Close()
			must(t, "settle", Settle(bounded(t)))
		})
	}
}

// The last words of a process that ends at once are what the user wants to see.
// Reading a terminal fails with EIO once nobody has its other side open, and
// what was written before may still be on its way then.
func TestTerminalOutputIsCompleteHoweverItEnds(t *testing.T) {
	endings := map[string]string{
		"at once":                `exec cat "$1"`,
		"in the background":      `(trap "" HUP; cat "$1"; : >"$2") & while [ ! -e "$2" ]; do :; done; rm "$2"`,
		"by a signal":            `cat "$1"; kill -9 $$`,
		"with a child behind it": `(trap "" HUP; : >"$2"; exec sleep 0.05) & while [ ! -e "$2" ]; do :; done; rm "$2"; exec cat "$1"`,
	}
	data := filepath.Join(t.TempDir(), "data")
	want := strings.Repeat("0123456789abcdef", 2000) + "end"
	must(t, "write data", os.WriteFile(data, []byte(want), 0o600))
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			mark := filepath.Join(t.TempDir(), "mark")
			for range 25 {
				s, out := way{terminal: true}.open(t)
				got := all(reader(t, out))
				p := launch(t, s, ending, "sh", data, mark)
				p.ended()
				must(t, "drain", s.Drain(bounded(t)))
				if got := receive(t, "the end of the output", got); got != want {
					t.Fatalf("%d bytes of %d came, the last are %q", len(got), len(want), got[max(0, len(got)-10):])
				}
				must(t, "close", s.Close())
			}
		})
	}
}

// The process may be gone before the shim has its terminal, and with it the
// session by which a hang-up is seen.
func TestTerminalOfAProcessThatHasEndedAlready(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	s, out := way{terminal: true}.open(t)
	client := reader(t, out)
	p := shell(t, s, `(trap "" HUP; : >"$0.ready"; exec sleep 100) & echo $! >"$0.pid"; until [ -e "$0.ready" ]; do :; done; echo quick`, dir+"/background")
	t.Cleanup(func() { killIn(t, dir+"/background.pid") })
	p.onTerminal()
	p.ended()
	must(t, "attach", s.Attach(bounded(t)))
	must(t, "drain", s.Drain(bounded(t)))
	must(t, "close", s.Close())
	if got := receive(t, "the end of the output", all(client)); got != "quick\n" {
		t.Errorf("got %q", got)
	}
}

// A terminal that its process has closed everywhere fails every read until
// somebody opens it again: not an end, and no reason to try again at once.
func TestTerminalThatNobodyHasOpenIsNotAtItsEnd(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	s, out := way{terminal: true}.open(t)
	client := reader(t, out)
	p := launch(t, s, untilThere+`tty=$(tty); echo one; exec <&- >&- 2>&-; : >"$1.closed"; there "$1"; echo two >"$tty"`, "sh", dir+"/go")
	next(t, client, "one\n")
	eventually(t, "the terminal is closed", func() bool { _, err := os.Stat(dir + "/go.closed"); return err == nil })
	p.signal(dir + "/go")
	if got := receive(t, "the end of the output", all(client)); got != "two\n" {
		t.Errorf("got %q", got)
	}
	p.ended()
	s.Close()
}

// Idle streams must not cost anything: an edge-triggered wait that misses its
// edge hangs, and one that is not edge-triggered spins.
func TestIdleStreamsTakeNoTime(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	in, out, full, file := mkfifo(t, dir, "in"), mkfifo(t, dir, "out"), mkfifo(t, dir, "full"), filepath.Join(dir, "file")
	var all []*Streams
	run := func(spec Spec, script string) *Streams {
		s := opened(t, spec, options(t))
		launch(t, s, script)
		all = append(all, s)
		return s
	}
	run(Spec{Stdin: in, Stdout: out, Terminal: true}, "exec sleep 1000")
	closed := run(Spec{Stdout: out, Terminal: true}, `exec <&- >&- 2>&-; exec sleep 1000`)
	run(Spec{Stdin: in, Stdout: out}, "exec sleep 1000")
	run(Spec{Stdin: in, Stdout: "file://" + file}, "exec sleep 1000")
	run(Spec{Stdin: in, Stdout: "file://" + file, Terminal: true}, "exec sleep 1000")
	fullTTY := run(Spec{Stdout: full, Terminal: true}, "exec cat /dev/zero")
	run(Spec{Stdout: full}, "exec cat /dev/zero")
	client := writer(t, in)
	io.WriteString(client, "input that nobody reads\n")
	client.Close()

	// Until everything that goes on by itself is over.
	eventually(t, "the terminal is closed", func() bool { return closed.outputs[0].sourceGone() })
	eventually(t, "the terminal is full", func() bool {
		r := fullTTY.outputs[0].passer.(*relay)
		return unread(r.src.descriptor().fd) > 0 && !ready(r.dst.descriptor(), unix.POLLOUT)
	})
	runtime.GC()
	const interval = 300 * time.Millisecond
	var used time.Duration
	for range 3 { // the rest of the test binary may have something to do
		before := cpu(t)
		<-time.After(interval)
		if used = cpu(t) - before; used < interval/20 {
			break
		}
	}
	if used >= interval/20 {
		t.Errorf("idle streams took %s of %s", used, interval)
	}
	for _, s := range all {
		s.Close()
	}
}

// cpu is the time that this process has used.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, "usage", unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
