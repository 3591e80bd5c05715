package shim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// logTest is a log and the FIFO that it writes to.
type logTest struct {
	t    *testing.T
	path string
	*log
}

// openedLog opens a log as the daemon does. The daemon's log is its stderr too,
// so the test's is kept and put back.
func openedLog(t *testing.T, debug bool) *logTest {
	t.Helper()
	l := &logTest{t: t, path: filepath.Join(t.TempDir(), "log")}
	must(t, "make FIFO", unix.Mkfifo(l.path, 0o600))
	l.log = openAsLog(t, l.path, debug)
	if l.log.fd != unix.Stderr {
		t.Fatalf("the log is descriptor %d", l.log.fd)
	}
	return l
}

func openAsLog(t *testing.T, path string, debug bool) *log {
	t.Helper()
	kept, err := unix.FcntlInt(uintptr(unix.Stderr), unix.F_DUPFD_CLOEXEC, 10)
	must(t, "keep stderr", err)
	t.Cleanup(func() {
		unix.Dup3(kept, unix.Stderr, 0)
		unix.Close(kept)
	})
	return openLog(path, "io.containerd.cleat.v2", debug)
}

// reader is containerd.
func (l *logTest) reader() *bufio.Reader {
	l.t.Helper()
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(l.t, "open log", err)
	l.t.Cleanup(func() { f.Close() })
	return bufio.NewReader(f)
}

var line = regexp.MustCompile(`^time="(\S+)" level=(\w+) msg="((?:[^"\\]|\\.)*)" runtime=io\.containerd\.cleat\.v2\n$`)

// next reads a line, which must be whole, and returns its level and message.
func next(t *testing.T, r *bufio.Reader) (level, message string) {
	t.Helper()
	type result struct {
		text string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		text, err := r.ReadString('\n')
		got <- result{text, err}
	}()
	read := receive(t, "a line of the log", got)
	parts := line.FindStringSubmatch(read.text)
	if parts == nil {
		t.Fatalf("%.300q (%d bytes), %v is no line of a log", read.text, len(read.text), read.err)
	}
	if _, err := time.Parse(time.RFC3339Nano, parts[1]); err != nil {
		t.Errorf("time %q: %v", parts[1], err)
	}
	return parts[2], parts[3]
}

func TestLogSpeaksAsContainerdDoes(t *testing.T) {
	for _, debug := range []bool{true, false} {
		l := openedLog(t, debug)
		r := l.reader()
		l.Debug("detail of %s", "it")
		l.Info("a \"quoted\" %s", "word")
		l.Warn("two\nlines and a %d", 7)
		if debug {
			if level, message := next(t, r); level != "debug" || message != "detail of it" {
				t.Errorf("%s %s", level, message)
			}
		}
		if level, message := next(t, r); level != "info" || message != `a \"quoted\" word` {
			t.Errorf("%s %s", level, message)
		}
		if level, message := next(t, r); level != "warning" || message != `two\nlines and a 7` {
			t.Errorf("%s %s", level, message)
		}
	}
}

// containerd may be stopped for hours; a shim that waits for it in its log is
// stuck, and one that ends by its SIGPIPE is worse.
func TestLogWaitsForNobodyAndCountsWhatIsLost(t *testing.T) {
	l := openedLog(t, false)
	written, text := 0, strings.Repeat("x", 1000)
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		for l.log.lost < 3 {
			l.Info("%d %s", written, text)
			written++
		}
	}()
	receive(t, "the log is full", filled)
	r := l.reader()
	for n := range written - 3 {
		if _, message := next(t, r); message != fmt.Sprintf("%d %s", n, text) {
			t.Fatalf("line %d is %.20q…", n, message)
		}
	}
	l.Warn("room")
	if _, message := next(t, r); message != "room (3 lines before this one are lost)" {
		t.Errorf("after the loss: %q", message)
	}
	l.Warn("more room")
	if _, message := next(t, r); message != "more room" {
		t.Errorf("after that: %q", message)
	}
}

func TestLogSurvivesItsReaders(t *testing.T) {
	l := openedLog(t, false)
	for n := range 3 {
		f, err := os.OpenFile(l.path, os.O_RDONLY, 0)
		must(t, "open log", err)
		l.Info("to reader %d", n)
		r := bufio.NewReader(f)
		want := []string{fmt.Sprint("to nobody ", n-1), fmt.Sprint("to reader ", n)}
		if n == 0 {
			want = want[1:]
		}
		for _, want := range want {
			if _, message := next(t, r); message != want {
				t.Errorf("read %q, want %q", message, want)
			}
		}
		f.Close()
		l.Info("to nobody %d", n)
	}
	if l.log.lost != 0 {
		t.Errorf("%d lines are lost", l.log.lost)
	}
}

// A pipe takes a part of a line that is longer than PIPE_BUF. What comes after
// it is a line again.
func TestLineThatIsTornDoesNotTearTheNext(t *testing.T) {
	l := openedLog(t, false)
	size, err := unix.FcntlInt(uintptr(unix.Stderr), unix.F_SETPIPE_SZ, 4*4096)
	must(t, "make the FIFO small", err)
	l.Info("%s", strings.Repeat("x", size)) // more than all of it
	l.Info("lost")
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, "open log", err)
	defer f.Close()
	torn := make([]byte, size)
	if _, err := io.ReadFull(f, torn); err != nil {
		t.Fatal(err)
	}
	l.Info("whole")
	r := bufio.NewReader(f)
	rest, err := r.ReadString('\n')
	if err != nil || strings.Contains(rest, "whole") {
		t.Fatalf("the rest of the torn line is %q, %v", rest, err)
	}
	if _, message := next(t, r); !strings.HasPrefix(message, "whole") {
		t.Errorf("after the torn line: %q", message)
	}
}

func TestLinesOfManyAreWhole(t *testing.T) {
	l := openedLog(t, false)
	r := l.reader()
	const writers, each = 8, 25
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range each {
				l.Info("%d %d %s", w, n, strings.Repeat("y", 100))
			}
		})
	}
	seen := map[int]int{}
	for range writers * each {
		_, message := next(t, r)
		var w, n int
		fmt.Sscan(message, &w, &n)
		if seen[w] != n {
			t.Fatalf("line %d of writer %d comes after %d of its lines", n, w, seen[w])
		}
		seen[w]++
	}
	all.Wait()
}

// What Go's runtime says when it gives up goes to stderr, and so to containerd's
// log.
func TestLogIsStderr(t *testing.T) {
	l := openedLog(t, false)
	os.Stderr.WriteString("fatal error: of the test\n")
	text, err := l.reader().ReadString('\n')
	if err != nil || text != "fatal error: of the test\n" {
		t.Errorf("read %q, %v", text, err)
	}
}

// What is not a FIFO in the bundle is not written to.
func TestLogThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	must(t, "write file", os.WriteFile(dir+"/file", []byte("text"), 0o600))
	must(t, "make FIFO", unix.Mkfifo(dir+"/fifo", 0o600))
	must(t, "make link", os.Symlink("fifo", dir+"/link"))
	for _, path := range []string{dir + "/missing", dir + "/file", dir, dir + "/link", "/dev/null"} {
		before, err := os.Readlink("/proc/self/fd/2")
		must(t, "read stderr", err)
		l := openAsLog(t, path, true)
		l.Warn("to nobody")
		l.Debug("to nobody")
		if after, _ := os.Readlink("/proc/self/fd/2"); after != before {
			t.Errorf("%s: stderr is %s", path, after)
		}
	}
	if text, err := os.ReadFile(dir + "/file"); err != nil || string(text) != "text" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	fifo, err := os.OpenFile(dir+"/fifo", os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, "open FIFO", err)
	defer fifo.Close()
	if n, err := fifo.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the FIFO behind the link: %d bytes, %v", n, err)
	}
	new(log).Warn("the zero value loses everything")
}
