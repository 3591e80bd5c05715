package stdio

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// way is how a process's output reaches its client's FIFO.
type way struct {
	name             string
	direct, terminal bool
}

var ways = []way{{name: "direct", direct: true}, {name: "spliced"}, {name: "terminal", terminal: true}}

// everyWay runs a story on each of them.
func everyWay(t *testing.T, story func(t *testing.T, w way)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			leavesNothing(t)
			story(t, w)
		})
	}
}

// open opens streams whose stdout is a new FIFO.
func (w way) open(t *testing.T) (s *Streams, out string) {
	t.Helper()
	out = mkfifo(t, t.TempDir(), "out")
	o := options(t)
	o.Direct = w.direct
	return opened(t, Spec{Stdout: out, Terminal: w.terminal}, o), out
}

// A client that is away when the container starts (containerd restarts) must
// hold nothing up, and finds what was written when it comes.
func TestNothingWaitsForAClientThatIsAway(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s, out := w.open(t)
		p := launch(t, s, "echo early")
		p.ended()
		must(t, "drain", s.Drain(bounded(t)))
		got := all(reader(t, out))
		if got := receive(t, "the end of the output", got); got != "early\n" {
			t.Errorf("got %q", got)
		}
		must(t, "close", s.Close())
	})
}

// A client may go and another come: no SIGPIPE, and nothing is missing.
func TestClientThatGoesCostsTheProcessNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		dir := t.TempDir()
		s, out := w.open(t)
		first := reader(t, out)
		p := launch(t, s, untilThere+`echo one; there "$1"; echo two`, "sh", dir+"/go")
		next(t, first, "one\n")
		first.Close()
		p.signal(dir + "/go")
		p.ended()
		if !p.cmd.ProcessState.Success() {
			t.Errorf("the process ended with %s", p.cmd.ProcessState)
		}
		next(t, reader(t, out), "two\n")
		must(t, "close", s.Close())
	})
}

func TestClientThatNeverComesHoldsUpNoEnd(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s, _ := w.open(t)
		p := launch(t, s, `exec cat /dev/zero`)
		eventually(t, "the process waits for room", func() bool { return waitsToWrite(t, p) })
		p.cmd.Process.Kill()
		p.ended()
		must(t, "close", s.Close())
		must(t, "settle", Settle(bounded(t)))
	})
}

// waitsToWrite tells whether the process sleeps because nobody reads.
func waitsToWrite(t *testing.T, p *proc) bool {
	t.Helper()
	where, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.cmd.Process.Pid))
	must(t, "read wchan", err)
	return strings.Contains(string(where), "pipe_write") || string(where) == "wait_woken" // of a terminal
}

// The client reads until EOF before it deletes the task, so EOF has to come
// when the last process that has the output is gone: not with Delete, and not
// with the first that goes.
func TestEOFComesWithTheEndOfTheLastWriter(t *testing.T) {
	for _, w := range ways[:2] { // a terminal ends with its session
		t.Run(w.name, func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			s, out := w.open(t)
			got := all(reader(t, out))
			p := launch(t, s, untilThere+`(there "$1"; echo child) & echo parent`, "sh", dir+"/go")
			p.ended()
			select {
			case text := <-got:
				t.Fatalf("the output has ended with %q", text)
			default:
			}
			p.signal(dir + "/go")
			if got := receive(t, "the end of the output", got); got != "parent\nchild\n" {
				t.Errorf("got %q", got)
			}
			must(t, "close", s.Close())
		})
	}
}

// The process ends at once after it has written, which is when output gets cut.
func TestMuchOutputArrivesAsItWasWritten(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	written := noise(8 << 20)
	must(t, "write data", os.WriteFile(data, written, 0o600))
	want := sha256.Sum256(written)

	everyWay(t, func(t *testing.T, w way) {
		s, out := w.open(t)
		client := reader(t, out)
		sum := make(chan [32]byte, 1)
		go func() {
			h := sha256.New()
			io.Copy(h, client)
			sum <- [32]byte(h.Sum(nil))
		}()
		p := launch(t, s, `exec cat "$1"`, "sh", data)
		p.ended()
		if got := receive(t, "the end of the output", sum); got != want {
			t.Error("it is not what was written")
		}
		must(t, "close", s.Close())
	})
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("file, terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			out := filepath.Join(t.TempDir(), "out")
			s := opened(t, Spec{Stdout: "file://" + out, Terminal: terminal}, options(t))
			p := launch(t, s, `exec cat "$1"`, "sh", data)
			p.ended()
			must(t, "drain", s.Drain(bounded(t)))
			got, err := os.ReadFile(out)
			must(t, "read the file", err)
			if sha256.Sum256(got) != want {
				t.Errorf("%d bytes of %d came, or not the same ones", len(got), len(written))
			}
			must(t, "close", s.Close())
		})
		t.Run(fmt.Sprintf("logger, terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			out := filepath.Join(t.TempDir(), "out")
			s := opened(t, Spec{Stdout: "binary://" + script(t, loggerScript) + "?out=" + out, Terminal: terminal}, options(t))
			p := launch(t, s, `exec cat "$1"`, "sh", data)
			p.ended()
			must(t, "drain", s.Drain(bounded(t)))
			got, err := os.ReadFile(out + ".stdout")
			must(t, "read the log", err)
			if sha256.Sum256(got) != want {
				t.Errorf("%d bytes of %d came, or not the same ones", len(got), len(written))
			}
			must(t, "close", s.Close())
		})
	}
}

// Full pipes are what makes containers wait for their clients. Where they do not
// wait, or the client may read too late, a FIFO stays as it is.
func TestFIFOsOfWhoWaitsAreAsLargeAsTheHostAllows(t *testing.T) {
	const usual = 16 * 4096 // pipe(7)
	everyWay(t, func(t *testing.T, w way) {
		for name, c := range map[string]struct {
			change func(*Options)
			want   int
		}{
			"block": {func(*Options) {}, pipeMax()},
			"drop":  {func(o *Options) { o.Logs.Policy = Drop }, usual},
			"exec":  {func(o *Options) { o.DrainFirst = true }, usual},
		} {
			out := mkfifo(t, t.TempDir(), "out")
			o := options(t)
			o.Direct = w.direct
			c.change(&o)
			s := opened(t, Spec{Stdout: out, Terminal: w.terminal}, o)
			size, err := unix.FcntlInt(reader(t, out).Fd(), unix.F_GETPIPE_SZ, 0)
			if err != nil || size != c.want {
				t.Errorf("%s: %d bytes and error %v, want %d", name, size, err, c.want)
			}
			s.Close()
		}
	})
}

// With direct output no byte passes through the shim, so the process must have
// the client's FIFO; where that cannot work it has a pipe that it owns.
func TestOwnerOfTheOutput(t *testing.T) {
	for _, c := range []struct {
		name         string
		uid, gid     int
		apart        bool
		stdout, errs string
	}{
		{"root of the host", 0, 0, false, "direct", "direct"},
		{"root of the host, stderr apart", 0, 0, true, "direct", "spliced"},
		{"user of a user namespace", 1234, 5678, false, "spliced", "spliced"},
		{"group of a user namespace", 0, 5678, true, "spliced", "spliced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			out, errs, in := mkfifo(t, dir, "out"), mkfifo(t, dir, "err"), mkfifo(t, dir, "in")
			o := options(t)
			o.Direct, o.Apart, o.UID, o.GID = true, c.apart, c.uid, c.gid
			s := opened(t, Spec{Stdin: in, Stdout: out, Stderr: errs}, o)
			if got := s.State(); got.Stdout != c.stdout || got.Stderr != c.errs || got.Stdin != "spliced" {
				t.Errorf("streams are %+v, want %s and %s output", got, c.stdout, c.errs)
			}
			var ends [3]*os.File
			ends[0], ends[1], ends[2] = s.Child()
			for i, f := range ends {
				var st unix.Stat_t
				must(t, "stat", unix.Fstat(int(f.Fd()), &st))
				if int(st.Uid) != c.uid || int(st.Gid) != c.gid {
					t.Errorf("descriptor %d belongs to %d:%d, want %d:%d", i, st.Uid, st.Gid, c.uid, c.gid)
				}
			}
			r := reader(t, out)
			launch(t, s, "echo hello").ended()
			next(t, r, "hello\n")
			s.Close()
		})
	}
}

// A log that cannot be written must not stop the container.
func TestFileThatTakesNothingLosesOutputAndNothingElse(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			var said record
			o := options(t)
			o.Log = said.log
			s := opened(t, Spec{Stdout: "file:///dev/full", Terminal: terminal}, o)
			p := launch(t, s, `head -c 1000000 /dev/zero && exit 7`)
			p.ended()
			if status := p.cmd.ProcessState.ExitCode(); status != 7 {
				t.Errorf("the process ended with status %d, want 7", status)
			}
			drainsNever(t, s)
			if got := s.State().Outputs[0]; got.Failures == 0 || !strings.Contains(got.Failure, "no space left") || got.Waiting == 0 || got.Waiting+got.Dropped.Bytes != 1000000 {
				t.Errorf("the state says %+v", got)
			}
			must(t, "close", s.Close())
			must(t, "settle", Settle(bounded(t)))
			for _, want := range []string{"output cannot be written, which is tried again: no space left on device", "output is dropped", "1000000 bytes of output are lost"} {
				if said.count(want) != 1 {
					t.Errorf("said %d times %q, in %q", said.count(want), want, said.all())
				}
			}
		})
	}
}

// drainsNever tells that draining the streams takes longer than a moment.
func drainsNever(t *testing.T, s *Streams) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("draining ended with %v", err)
	}
}

// A disk that was full takes output again as soon as it has room, and all of it.
func TestFullDiskTakesOutputAgainWhenItHasRoom(t *testing.T) {
	leavesNothing(t)
	disk, dir := smallDisk(t, 64<<10), t.TempDir()
	must(t, "fill the disk", os.WriteFile(disk+"/ballast", make([]byte, 64<<10), 0o600))

	var said record
	o := options(t)
	o.Log = said.log
	s := opened(t, Spec{Stdout: "file://" + disk + "/log"}, o)
	p := launch(t, s, untilThere+`echo early; there "$1"; echo late`, "sh", dir+"/room")
	eventually(t, "a word that output cannot be written", func() bool { return said.count("output cannot be written") == 1 })
	must(t, "make room", os.Remove(disk+"/ballast"))
	p.signal(dir + "/room")
	p.ended()
	must(t, "drain", s.Drain(bounded(t)))
	fileHolds(t, disk+"/log", "early\nlate\n")
	if said.count("output is written again") != 1 {
		t.Errorf("said %q", said.all())
	}
	s.Close()
}

// smallDisk has room for that many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprint("size=", size)); errors.Is(err, unix.EPERM) {
		t.Skip("needs root to mount a small disk")
	} else {
		must(t, "mount a small disk", err)
	}
	t.Cleanup(func() { must(t, "unmount", unix.Unmount(disk, unix.MNT_DETACH)) })
	return disk
}

// Files are appended to: a container that is started again goes on with its log,
// and both streams may go to one file.
func TestFilesAreAppendedTo(t *testing.T) {
	leavesNothing(t)
	log := filepath.Join(t.TempDir(), "log")
	must(t, "write log", os.WriteFile(log, []byte("before\n"), 0o600))
	s := opened(t, Spec{Stdout: "file://" + log, Stderr: "file://" + log}, options(t))
	launch(t, s, "echo out; echo err >&2").ended()
	must(t, "drain", s.Drain(bounded(t)))
	got, err := os.ReadFile(log)
	must(t, "read log", err)
	if text := string(got); text != "before\nout\nerr\n" && text != "before\nerr\nout\n" {
		t.Errorf("the log holds %q", text)
	}
	s.Close()
}
