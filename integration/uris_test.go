package integration

// Standard IO that is not FIFOs, as containerd's clients ask for it: files and
// logging programs.

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// namedIO asks for URIs as they are.
type namedIO cio.Config

func (n namedIO) Config() cio.Config { return cio.Config(n) }
func (n namedIO) Cancel()            {}
func (n namedIO) Wait()              {}
func (n namedIO) Close() error       { return nil }

func uris(stdout, stderr string, terminal bool) cio.Creator {
	return func(string) (cio.IO, error) {
		return namedIO{Stdout: stdout, Stderr: stderr, Terminal: terminal}, nil
	}
}

// ends starts a box that ends by itself, and deletes it.
func (b *box) ends(creator cio.Creator, want uint32) {
	b.t.Helper()
	b.create(creator)
	ended := b.wait(b.task)
	if err := b.task.Start(b.ctx); err != nil {
		b.t.Fatalf("start %s: %v", b.ID(), err)
	}
	if code := ended(); code != want {
		b.t.Errorf("%s ended with %d, want %d", b.ID(), code, want)
	}
	b.delete()
	nothingLeftOf(b.t, b.d, b.ID())
}

// holds compares a file's whole content.
func holds(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if got := strings.ReplaceAll(string(text), "\r\n", "\n"); got != want {
		t.Errorf("%s holds\n%s\nwant\n%s", path, tail(got, 20), tail(want, 20))
	}
}

// speaker writes to both of its outputs.
var speaker = []string{"sh", "-c", "echo out; echo err >&2; exit 3"}

// Stock fails: both streams go to the first one's file.
func TestFilesTakeTheOutput(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	dir := t.TempDir()
	out, errs := filepath.Join(dir, "new/out.log"), filepath.Join(dir, "new/err.log")
	for range 2 { // the second is appended
		newBox(t, d, "files", speaker).ends(uris("file://"+out, "file://"+errs, false), 3)
	}
	holds(t, out, "out\nout\n")
	holds(t, errs, "err\nerr\n")

	both := filepath.Join(dir, "both.log")
	newBox(t, d, "files-both", []string{"sh", "-c", "echo word; echo word >&2; exit 3"}).ends(cio.LogFile(both), 3)
	holds(t, both, "word\nword\n")

	b := newBox(t, d, "files-exec", forever).start(nil)
	p := b.exec("e", uris("file://"+out, "file://"+errs, false), speaker...)
	b.wait(p)()
	b.deleteExec(p)
	holds(t, out, "out\nout\nout\n")
	holds(t, errs, "err\nerr\nerr\n")
	b.end()
}

// Stock fails: a terminal cannot go to a file.
func TestFileTakesTheOutputOfATerminal(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	path := filepath.Join(t.TempDir(), "tty.log")
	b := newBox(t, d, "file-tty", speaker, oci.WithTTY)
	b.ends(uris("file://"+path, "", true), 3)
	holds(t, path, "out\nerr\n")
}

// recorder is a logger that writes down how it was called, and the streams to
// files of their own.
const recorder = `log=$1
{
	for arg; do echo "arg $arg"; done
	$busybox tr '\0' '\n' </proc/$$/environ | $busybox sort
} >>$log.call
%s
$busybox cat <&3 >>$log.out & $busybox cat <&4 >>$log.err
wait
echo ended >>$log.ended`

// What loggers are given is a contract with people who write them: arguments in
// the order of the URI, an environment of two variables, the streams as 3 and
// 4, the word that they are ready on 5. What they were given is with them when
// the task is deleted. Stock fails: arguments come in any order.
func TestLoggersAreCalledAsTheirAuthorsExpect(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	for scheme, ready := range map[string]string{"binary": "exec 5>&-", "binary-v2": "echo >&5; exec 5>&-"} {
		for _, tty := range []bool{false, true} {
			id := fmt.Sprintf("logger-%s-%t", scheme, tty)
			program := logger(t, fmt.Sprintf(recorder, ready))
			log := program + ".log"
			uri := fmt.Sprintf("%s://%s?%s=&zebra=1&apple=2&zebra=3&word=two+words&empty", scheme, program, url.QueryEscape(log))
			var more []oci.SpecOpts
			if tty {
				more = append(more, oci.WithTTY)
			}
			newBox(t, d, id, speaker, more...).ends(uris(uri, uri, tty), 3)
			holds(t, log+".call", "arg "+log+"\narg \narg zebra\narg 1\narg apple\narg 2\narg zebra\narg 3\narg word\narg two words\narg empty\narg \n"+
				"CONTAINER_ID="+id+"\nCONTAINER_NAMESPACE="+d.Namespace+"\n")
			holds(t, log+".ended", "ended\n")
			if tty {
				holds(t, log+".out", "out\nerr\n")
				continue
			}
			holds(t, log+".out", "out\n")
			holds(t, log+".err", "err\n")
		}
	}
}

// Different URIs are different loggers, each of one stream; so it is for execs.
// Stock fails: the first gets all.
func TestLoggersOfOneStreamEach(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	program := logger(t, fmt.Sprintf(recorder, "exec 5>&-"))
	a, b := program+".a", program+".b"
	first, second := fmt.Sprintf("binary://%s?%s", program, a), fmt.Sprintf("binary://%s?%s", program, b)
	newBox(t, d, "loggers", speaker).ends(uris(first, second, false), 3)
	holds(t, a+".out", "out\n")
	holds(t, a+".err", "")
	holds(t, b+".out", "")
	holds(t, b+".err", "err\n")

	box := newBox(t, d, "loggers-exec", forever).start(nil)
	c := program + ".c"
	p := box.exec("e", uris(fmt.Sprintf("binary://%s?%s", program, c), fmt.Sprintf("binary://%s?%s", program, c), false), speaker...)
	if code := box.wait(p)(); code != 3 {
		t.Errorf("the exec ended with %d, want 3", code)
	}
	box.deleteExec(p)
	holds(t, c+".out", "out\n")
	holds(t, c+".err", "err\n")
	holds(t, c+".ended", "ended\n")
	box.end()
}

// The client learns why there is no logger, in the logger's own words. Stock
// fails: nothing of that is told.
func TestLoggerThatFailsIsToldInItsOwnWords(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	fails := logger(t, "echo cannot reach the log server >&2; exit 4")
	for uri, want := range map[string]string{
		"binary://" + fails:    "cannot reach the log server",
		"binary-v2://" + fails: "cannot reach the log server",
		"binary-v2://" + logger(t, "exec 5>&-; exec $busybox sleep 1000"): "ready",
		"binary:///no/such/logger":                                        "no such file or directory",
		"binary://" + text:                                                "exec format error",
	} {
		b := newBox(t, d, "logger-fails", forever)
		_, err := b.NewTask(b.ctx, uris(uri, uri, false))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a task with %s gives %v, want %q", uri, err, want)
		}
		b.cleanup()
		nothingLeftOf(t, d, b.ID())
	}
}

// What is no URI of an output is refused, the class says that it is the
// client's fault, and nothing is left of the container. Stock fails: the errors
// have no class.
func TestURIsThatAreNone(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("no-uri").run()
	joins := l.prepare("no-uri-tty", func(s *specs.Spec) { s.Process.Terminal = true }).boot()
	bad := l.prepare("no-uri-2").boot()
	dir := t.TempDir()
	list := []string{
		"http://localhost/log", "tcp:1234", "relative/path", "file://relative", "file:///" + dir + "/log?query=1",
		"file://" + dir, "fifo://" + dir, "binary://relative?a=b", "://", "file://%zz", dir,
	}
	for i, uri := range list {
		exec := m.execRequest(fmt.Sprint("e", i), "true")
		exec.Stdout = uri
		m.add(exec)
		for name, try := range map[string]func() error{
			"stdout": func() error {
				bad.request.Stdout, bad.request.Stderr = uri, ""
				_, err := bad.tryCreate(l.ctx)
				return err
			},
			"stderr": func() error {
				bad.request.Stdout, bad.request.Stderr = "", uri
				_, err := bad.tryCreate(l.ctx)
				return err
			},
			"terminal": func() error {
				joins.request.Terminal, joins.request.Stdout = true, uri
				_, err := joins.tryCreate(l.ctx)
				return err
			},
			"exec": func() error { _, err := m.tryStart(exec.ExecID); return err },
		} {
			if err := try(); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s to %q gives %v, want an invalid argument", name, uri, err)
			}
		}
		m.delete(exec.ExecID)
	}
	for _, none := range []*member{bad, joins} {
		none.shutdown()
		none.clean()
	}
	m.end()

	d := sharedDaemon(t)
	b := newBox(t, d, "no-uri", forever)
	task, err := b.NewTask(b.ctx, uris(list[0], list[0], false))
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("a task with output to %q gives %v, want an invalid argument", list[0], err)
	}
	if err == nil {
		task.Delete(b.ctx, containerd.WithProcessKill)
	}
	b.cleanup()
	nothingLeftOf(t, d, b.ID())
}
