package stdio

// Every combination of what a client can name for the three streams, with a
// process that uses all of them. Stock fails on partial sets ("opening file
// \"\""), on a terminal with a file and on one without output, and writes
// stderr into stdout's file.

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

var kindNames = map[kind]string{none: "none", fifo: "fifo", file: "file", binary: "binary", binaryV2: "binary-v2"}

// sinkOf is one output of a test, of any kind.
type sinkOf struct {
	kind kind
	uri  string
	path string
	got  <-chan string // of a FIFO, once it is read
}

// loggerScript writes its stdout to $2.stdout and its stderr to $2.stderr, once
// it has said in $4 (eof or byte) that it is ready. /bin/sh has no environment
// here but what the shim gives.
const loggerScript = `#!/bin/sh
/bin/cat <&3 >"$2.stdout" 5>&- &
/bin/cat <&4 >"$2.stderr" 5>&- &
exec 3<&- 4<&-
[ "$4" = byte ] && echo >&5
exec 5>&-
wait
`

// script writes a program and returns its path.
func script(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	must(t, "write script", os.WriteFile(path, []byte(text), 0o700))
	return path
}

func newSink(t testing.TB, k kind, logger, name string) *sinkOf {
	t.Helper()
	s := &sinkOf{kind: k, path: filepath.Join(t.TempDir(), name)}
	switch k {
	case fifo:
		mkfifo(t, filepath.Dir(s.path), name)
		s.uri = s.path
	case file:
		s.path = filepath.Join(t.TempDir(), "made", "on the way", name)
		s.uri = (&url.URL{Scheme: "file", Path: s.path}).String()
	case binary:
		s.uri = "binary://" + logger + "?out=" + url.QueryEscape(s.path) + "&ready=eof"
	case binaryV2:
		s.uri = "binary-v2://" + logger + "?out=" + url.QueryEscape(s.path) + "&ready=byte"
	}
	return s
}

// listen reads a FIFO, as a client does before the process runs.
func (s *sinkOf) listen(t testing.TB) {
	if s.kind == fifo {
		s.got = all(reader(t, s.path))
	}
}

// expect tells whether the sink of the named stream has got exactly want.
func (s *sinkOf) expect(t testing.TB, stream, want string) {
	t.Helper()
	switch s.kind {
	case fifo:
		if got := receive(t, "the end of "+stream, s.got); got != want {
			t.Errorf("%s: %q, want %q", stream, got, want)
		}
	case file:
		fileHolds(t, s.path, want)
	case binary, binaryV2:
		fileHolds(t, s.path+"."+stream, want)
		other := map[string]string{"stdout": "stderr", "stderr": "stdout"}[stream]
		fileHolds(t, s.path+"."+other, "")
	}
}

func TestEveryCombinationOfStreams(t *testing.T) {
	leavesNothing(t)
	kinds := []kind{none, fifo, file, binary, binaryV2}
	logger := script(t, loggerScript)
	for _, direct := range []bool{true, false} {
		for _, stdin := range []kind{none, fifo} {
			for _, stdout := range kinds {
				for _, stderr := range kinds {
					name := fmt.Sprintf("%s,%s,%s direct=%t", kindNames[stdin], kindNames[stdout], kindNames[stderr], direct)
					t.Run(name, func(t *testing.T) { combine(t, logger, stdin, stdout, stderr, direct) })
				}
			}
		}
	}
}

func combine(t *testing.T, logger string, stdin, stdout, stderr kind, direct bool) {
	o := options(t)
	o.Direct = direct
	out, errs := newSink(t, stdout, logger, "out"), newSink(t, stderr, logger, "err")
	spec := Spec{Stdout: out.uri, Stderr: errs.uri}
	if stdin == fifo {
		spec.Stdin = mkfifo(t, t.TempDir(), "in")
	}
	s := opened(t, spec, o)
	out.listen(t)
	errs.listen(t)
	p := launch(t, s, `cat; echo out; echo err >&2`)
	input := ""
	if stdin == fifo {
		input = "input\n"
		in := writer(t, spec.Stdin)
		in.WriteString(input)
		in.Close()
		must(t, "close stdin", s.CloseStdin())
	}
	p.ended()
	must(t, "drain", s.Drain(bounded(t)))
	out.expect(t, "stdout", input+"out\n")
	errs.expect(t, "stderr", "err\n")
	must(t, "close", s.Close())
	must(t, "close again", s.Close())
}

func TestEveryCombinationOfATerminal(t *testing.T) {
	leavesNothing(t)
	logger := script(t, loggerScript)
	for _, stdin := range []kind{none, fifo} {
		for _, stdout := range []kind{none, fifo, file, binary, binaryV2} {
			for _, stderr := range []kind{none, fifo, file} { // stands for nothing
				t.Run(fmt.Sprintf("%s,%s,%s", kindNames[stdin], kindNames[stdout], kindNames[stderr]), func(t *testing.T) {
					combineTerminal(t, logger, stdin, stdout, stderr)
				})
			}
		}
	}
}

func combineTerminal(t *testing.T, logger string, stdin, stdout, stderr kind) {
	out, errs := newSink(t, stdout, logger, "out"), newSink(t, stderr, logger, "err")
	spec := Spec{Stdout: out.uri, Stderr: errs.uri, Terminal: true}
	if stdin == fifo {
		spec.Stdin = mkfifo(t, t.TempDir(), "in")
	}
	s := opened(t, spec, options(t))
	if a, b, c := s.Child(); a != nil || b != nil || c != nil {
		t.Error("there are ends for the process, which has a terminal")
	}
	out.listen(t)
	p := shell(t, s, `tty -s && echo terminal; [ "$1" = none ] || read line; echo "$line"`, "sh", kindNames[stdin])
	p.quiet = true
	p.launch()
	must(t, "open stdin", s.OpenStdin())
	if socket := s.ConsoleSocket(); socket != "" {
		t.Errorf("there still is a console socket: %s", socket)
	}
	line := ""
	if stdin == fifo {
		line = "line"
		writer(t, spec.Stdin).WriteString(line + "\n")
	}
	p.ended()
	must(t, "drain", s.Drain(bounded(t)))
	out.expect(t, "stdout", "terminal\n"+line+"\n")
	if stderr == file {
		if _, err := os.Stat(errs.path); err == nil {
			t.Error("a file was made for stderr, which a terminal does not have")
		}
	}
	must(t, "close", s.Close())
}

func TestInputComesFromAFIFOOnly(t *testing.T) {
	leavesNothing(t)
	for _, stdin := range []string{"file:///dev/null", "binary:///bin/true", "binary-v2:///bin/true", "what:///ever"} {
		for _, terminal := range []bool{false, true} {
			_, err := Open(bounded(t), Spec{Stdin: stdin, Terminal: terminal}, options(t))
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("stdin %s: error %v, want an invalid argument", stdin, err)
			}
		}
	}
}

func TestURIsStayAsTheyWere(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	mkfifo(t, dir, "100% a?b#c")
	s := opened(t, Spec{Stdout: dir + "/100% a?b#c"}, options(t))
	r := reader(t, dir+"/100% a?b#c")
	p := launch(t, s, "echo hello")
	next(t, r, "hello\n")
	p.ended()
	s.Close()
}
