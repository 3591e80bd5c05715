package stdio

// What the tests share: FIFOs and their clients, processes that are given
// streams, and the watch for what is left open. Everything is the kernel's own:
// the processes are shells, the loggers are shell scripts.

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci/child"
	"golang.org/x/sys/unix"
)

// TestMain has every process that is left behind become the test's child, and
// fails for each that still runs in the end.
func TestMain(m *testing.M) {
	if err := child.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		list, _ := os.ReadFile(file) // its thread may have ended
		for pid := range strings.FieldsSeq(string(list)) {
			// A zombie has no command line.
			if line, _ := os.ReadFile("/proc/" + pid + "/cmdline"); len(line) > 0 {
				fmt.Printf("left behind: process %s %q\n", pid, line)
				number, _ := strconv.Atoi(pid)
				unix.Kill(number, unix.SIGKILL)
				code = 1
			}
		}
	}
	os.Exit(code)
}

const patience = 20 * time.Second // for what happens at once on an idle machine

// receive fails the test when nothing comes in time.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// bounded is a context for what must not take long.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// leavesNothing fails the test when descriptors or goroutines are left at its
// end that were not there at its beginning. It is called first.
func leavesNothing(t testing.TB) {
	t.Helper()
	goroutines, before := runtime.NumGoroutine(), descriptorsOpen(t)
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		must(t, "settle", Settle(bounded(t)))
		var after []string
		end := time.Now().Add(patience)
		for {
			after = descriptorsOpen(t)
			if len(after) <= len(before) && runtime.NumGoroutine() <= goroutines+1 { // the context's above
				return
			}
			if time.Now().After(end) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		stacks := make([]byte, 1<<16)
		t.Errorf("%d goroutines, then %d; descriptors before:\n%s\nafter:\n%s\n%s", goroutines, runtime.NumGoroutine(),
			strings.Join(before, "\n"), strings.Join(after, "\n"), stacks[:runtime.Stack(stacks, true)])
	})
}

// descriptorsOpen lists the test's descriptors, without those of the Go runtime.
func descriptorsOpen(t testing.TB) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, "list descriptors", err)
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasSuffix(to, "/fd") || strings.Contains(to, "[event") {
			continue // the list itself, and the netpoller
		}
		info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		_, flags, _ := strings.Cut(string(info), "flags:\t")
		flags, _, _ = strings.Cut(flags, "\n")
		open = append(open, e.Name()+" "+to+" "+flags)
	}
	return open
}

// record keeps what is logged.
type record struct {
	mu    sync.Mutex
	lines []string
}

func (r *record) log(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (r *record) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (r *record) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// options that log to the test.
func options(t testing.TB) Options {
	return Options{Dir: t.TempDir(), ContainerID: "box", Namespace: "space", Log: t.Logf}
}

func mkfifo(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, "make FIFO", unix.Mkfifo(path, 0o600))
	return path
}

// reader opens the client's end of an output FIFO, which has a writer.
func reader(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, "open client's end", err)
	t.Cleanup(func() { f.Close() })
	return f
}

// writer opens the client's end of an input FIFO, which has a reader.
func writer(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	must(t, "open client's end", err)
	t.Cleanup(func() { f.Close() })
	return f
}

// all reads to the end in the background.
func all(r io.Reader) <-chan string {
	got := make(chan string, 1)
	go func() {
		b, err := io.ReadAll(r)
		if err != nil {
			b = append(b, err.Error()...)
		}
		got <- string(b)
	}()
	return got
}

// next reads exactly as much as want is long.
func next(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		b := make([]byte, len(want))
		n, err := io.ReadFull(r, b)
		if err != nil {
			got <- fmt.Sprintf("%q and %v", b[:n], err)
			return
		}
		got <- string(b)
	}()
	if got := receive(t, fmt.Sprintf("%q", want), got); got != want {
		t.Fatalf("read %q, want %q", got, want)
	}
}

// proc is a process that was given streams.
type proc struct {
	t       testing.TB
	cmd     *exec.Cmd
	streams *Streams
	gone    chan struct{} // reaped, and the streams know
	// With a terminal: it does not echo, or passes on every byte as it is.
	quiet, raw bool
}

// opened opens streams, to be closed by the end of the test.
func opened(t testing.TB, spec Spec, o Options) *Streams {
	t.Helper()
	s, err := Open(bounded(t), spec, o)
	must(t, "open", err)
	t.Cleanup(func() { s.Close() })
	return s
}

// shell is a process that will run the script. args are $0, $1, …
func shell(t testing.TB, s *Streams, script string, args ...string) *proc {
	return &proc{t: t, cmd: exec.Command("/bin/sh", append([]string{"-c", script}, args...)...), streams: s, gone: make(chan struct{})}
}

// launch runs a script with the streams, as an OCI runtime and the shim do.
func launch(t testing.TB, s *Streams, script string, args ...string) *proc {
	t.Helper()
	p := shell(t, s, script, args...)
	p.launch()
	must(t, "open stdin", s.OpenStdin())
	return p
}

// launch starts the process with the streams' ends and attaches these.
func (p *proc) launch() {
	p.t.Helper()
	if p.streams.ConsoleSocket() != "" {
		p.onTerminal()
	} else {
		stdin, stdout, stderr := p.streams.Child()
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, stdout, stderr
		p.start()
	}
	must(p.t, "attach", p.streams.Attach(bounded(p.t)))
}

func (p *proc) start() {
	p.t.Helper()
	must(p.t, "start process", p.cmd.Start())
	go func() {
		p.cmd.Wait()
		p.streams.Exited()
		close(p.gone)
	}()
	p.t.Cleanup(func() { p.cmd.Process.Kill(); <-p.gone })
}

// ended waits for the process's end.
func (p *proc) ended() {
	p.t.Helper()
	receive(p.t, "the end of the process", p.gone)
}

// signals the process by a file that it waits for; see untilThere.
func (p *proc) signal(file string) {
	p.t.Helper()
	must(p.t, "signal", os.WriteFile(file, nil, 0o600))
}

// untilThere is a piece of script that waits for a file.
const untilThere = `there() { until [ -e "$1" ]; do sleep 0.01; done; }; `

// fileHolds waits until a file has exactly that content.
func fileHolds(t testing.TB, path, want string) {
	t.Helper()
	var got []byte
	eventually(t, fmt.Sprintf("%s in %s", want, path), func() bool {
		got, _ = os.ReadFile(path)
		return string(got) == want
	})
}
