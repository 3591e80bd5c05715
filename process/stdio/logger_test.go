package stdio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// What a logger is given is a contract with the authors of loggers (nerdctl,
// AWS); stock passes arguments on in random order and loses repeated keys.
func TestLoggerIsGivenWhatTheContractSays(t *testing.T) {
	leavesNothing(t)
	out := filepath.Join(t.TempDir(), "out")
	logger := script(t, `#!/bin/sh
{
	/bin/cat /proc/$$/environ; echo
	for a in "$@"; do echo "[$a]"; done
	for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo "$n $(/bin/readlink /proc/$$/fd/$n)"; done
} >`+out+`.tmp
/bin/mv `+out+`.tmp `+out+`
exec 5>&-
/bin/cat <&3 >/dev/null
`)
	// Neither this nor anything else of the shim's environment is a logger's.
	t.Setenv("SECRET", "of the shim")
	s := opened(t, Spec{Stdout: "binary://" + logger + "?z=1&a=&z=2&flag&b=%26+x"}, options(t))
	text, err := os.ReadFile(out)
	must(t, "read what the logger has seen", err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	want := []string{"CONTAINER_ID=box\x00CONTAINER_NAMESPACE=space\x00",
		"[z]", "[1]", "[a]", "[]", "[z]", "[2]", "[flag]", "[]", "[b]", "[& x]",
		"0 /dev/null", "1 " + out + ".tmp", "2 pipe:", "3 pipe:", "4 /dev/null", "5 pipe:"}
	if len(lines) != len(want) {
		t.Fatalf("the logger has seen %q", lines)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("line %d: %q, want %q", i, lines[i], want[i])
		}
	}
	s.Close()
}

func TestReadinessOfLoggers(t *testing.T) {
	for _, c := range []struct {
		name, scheme, script string
		ready                time.Duration
		class                error
		says                 string // in the error
	}{
		{name: "closes", scheme: "binary", script: "exec 5>&-; /bin/cat <&3"},
		{name: "says a byte", scheme: "binary", script: "echo >&5; /bin/cat <&3"},
		{name: "ends well at once", scheme: "binary", script: "exit 0"},
		{name: "dies", scheme: "binary", script: "echo no disk >&2; exit 3", class: errdefs.ErrUnavailable, says: "ended before it was ready: no disk"},
		{name: "is killed", scheme: "binary", script: "kill -9 $$", class: errdefs.ErrUnavailable, says: "ended before it was ready"},
		{name: "says nothing", scheme: "binary", script: "echo waiting for the server >&2; exec /bin/sleep 1000", ready: 100 * time.Millisecond, class: errdefs.ErrUnavailable, says: "is not ready after 100ms: waiting for the server"},
		{name: "says much on stderr", scheme: "binary", script: "/bin/head -c 100000 /dev/zero | /usr/bin/tr '\\0' x >&2; echo the end >&2; exit 1", class: errdefs.ErrUnavailable, says: "xxxthe end"},

		{name: "says a byte", scheme: "binary-v2", script: "echo >&5; /bin/cat <&3"},
		{name: "closes", scheme: "binary-v2", script: "echo forgot >&2; exec 5>&- 2>&-; exec /bin/sleep 1000", class: errdefs.ErrUnavailable, says: "closed its ready descriptor without a word: forgot"},
		{name: "ends", scheme: "binary-v2", script: "exit 0", class: errdefs.ErrUnavailable, says: "without a word"},
		{name: "says nothing", scheme: "binary-v2", script: "exec /bin/sleep 1000", ready: 100 * time.Millisecond, class: errdefs.ErrUnavailable, says: "is not ready after 100ms"},
	} {
		t.Run(c.scheme+" "+c.name, func(t *testing.T) {
			leavesNothing(t)
			o := options(t)
			o.Ready = c.ready
			logger := script(t, "#!/bin/sh\n"+c.script)
			s, err := Open(bounded(t), Spec{Stdout: c.scheme + "://" + logger}, o)
			if c.class == nil {
				must(t, "open", err)
				s.Close()
				return
			}
			if !errors.Is(err, c.class) {
				t.Fatalf("error %v, want one of class %q", err, c.class)
			}
			if text := err.Error(); !strings.Contains(text, c.says) || !strings.Contains(text, logger) || len(text) > 8<<10 {
				t.Errorf("error %.200q of %d bytes, want one with %q and the logger's path", text, len(text), c.says)
			}
		})
	}
}

func TestCallerThatGivesUpEndsTheWaitForALogger(t *testing.T) {
	leavesNothing(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	o := options(t)
	o.Ready = time.Hour
	_, err := Open(ctx, Spec{Stdout: "binary://" + script(t, "#!/bin/sh\nexec /bin/sleep 1000")}, o)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
	if strings.Contains(fmt.Sprint(err), "1h") {
		t.Errorf("error %v names a limit that did not end the wait", err)
	}
}

func TestProgramsThatAreNoLoggers(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"text": 0o600, "garbage": 0o700} {
		must(t, "write file", os.WriteFile(filepath.Join(dir, name), []byte("\x00not a program"), mode))
	}
	for _, c := range []struct {
		path  string
		class error
	}{
		{"/no/such/logger", errdefs.ErrNotFound},
		{dir, errdefs.ErrPermissionDenied},
		{dir + "/text", errdefs.ErrPermissionDenied},
		{dir + "/text/below", errdefs.ErrInvalidArgument},
		{dir + "/garbage", errdefs.ErrInvalidArgument},
	} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s terminal=%t", filepath.Base(c.path), terminal), func(t *testing.T) {
				leavesNothing(t)
				_, err := Open(bounded(t), Spec{Stdout: "binary://" + c.path, Stderr: "binary://" + c.path, Terminal: terminal}, options(t))
				if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.path) {
					t.Errorf("error %v, want one of class %q with the path", err, c.class)
				}
			})
		}
	}
}

// containerd's LogURI sets both streams to one URI: two loggers would fight over
// one log.
func TestOneLoggerForEqualURIsAndTwoForDifferentOnes(t *testing.T) {
	logger := script(t, loggerScript)
	for _, c := range []struct {
		name, stderr string
		loggers      int
	}{{"equal", "", 1}, {"different", "&more=1", 2}} {
		t.Run(c.name, func(t *testing.T) {
			leavesNothing(t)
			out := filepath.Join(t.TempDir(), "out")
			uri := "binary://" + logger + "?out=" + out
			s := opened(t, Spec{Stdout: uri, Stderr: uri + c.stderr}, options(t))
			var pids []int
			for _, l := range s.State().Loggers {
				pids = append(pids, l.PID)
			}
			if len(pids) != c.loggers {
				t.Errorf("there are %d loggers, want %d", len(pids), c.loggers)
			}
			launch(t, s, "echo out; echo err >&2").ended()
			must(t, "drain", s.Drain(bounded(t)))
			if c.loggers == 1 {
				fileHolds(t, out+".stdout", "out\n")
				fileHolds(t, out+".stderr", "err\n")
			}
			// At the end of its streams a logger ends by itself, and is reaped.
			for _, pid := range pids {
				if err := unix.Kill(pid, 0); err != unix.ESRCH {
					t.Errorf("logger %d after the drain: %v", pid, err)
				}
			}
			s.Close()
		})
	}
}

// When the second logger fails, the first one ends with nothing to log.
func TestLoggerThatFailsEndsTheOtherOne(t *testing.T) {
	leavesNothing(t)
	out := filepath.Join(t.TempDir(), "out")
	_, err := Open(bounded(t), Spec{Stdout: "binary://" + script(t, loggerScript) + "?out=" + out, Stderr: "binary:///no/such/logger"}, options(t))
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "/no/such/logger") {
		t.Errorf("error %v", err)
	}
	must(t, "settle", Settle(bounded(t)))
	fileHolds(t, out+".stdout", "")
}

// The end of a log is what is looked for after a crash: the logger is not told
// to end before it has had all of it.
func TestSlowLoggerGetsEverything(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		for _, drain := range []bool{true, false} {
			t.Run(fmt.Sprintf("terminal=%t drain=%t", terminal, drain), func(t *testing.T) {
				leavesNothing(t)
				dir := t.TempDir()
				logger := script(t, "#!/bin/sh\nexec 5>&-; until [ -e "+dir+"/go ]; do /bin/sleep 0.01; done; exec /bin/cat <&3 >"+dir+"/log")
				s := opened(t, Spec{Stdout: "binary://" + logger, Terminal: terminal}, options(t))
				p := launch(t, s, "echo one; echo two")
				p.ended()
				if drain {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
					defer cancel()
					if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the drain ended with %v before the logger had read", err)
					}
				}
				must(t, "close", s.Close())
				p.signal(dir + "/go")
				must(t, "settle", Settle(bounded(t)))
				fileHolds(t, dir+"/log", "one\ntwo\n")
			})
		}
	}
}

func TestLoggerThatDoesNotEndIsTold(t *testing.T) {
	for _, c := range []struct {
		name, trap string
		grace      time.Duration
		ended      string
	}{
		{"by SIGTERM", `trap 'kill $!; echo term >$2; exit 0' TERM; /bin/sleep 1000 3<&- 5>&- &`, 500 * time.Millisecond, "term\n"},
		{"by SIGKILL", `trap "" TERM; exec 5>&-; kill -STOP $$`, 20 * time.Millisecond, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			leavesNothing(t)
			o := options(t)
			o.Grace = c.grace
			out := filepath.Join(t.TempDir(), "out")
			s := opened(t, Spec{Stdout: "binary://" + script(t, "#!/bin/sh\n"+c.trap+"\nexec 5>&-; wait") + "?out=" + out}, o)
			pid := s.State().Loggers[0].PID
			launch(t, s, "echo hello").ended()
			must(t, "close", s.Close())
			must(t, "settle", Settle(bounded(t)))
			if err := unix.Kill(pid, 0); err != unix.ESRCH {
				t.Errorf("the logger is still there: %v", err)
			}
			if c.ended != "" {
				fileHolds(t, out, c.ended)
			}
		})
	}
}

// A logger that crashes must not take the container with it, by SIGPIPE or by a
// pipe that is full, and is told of.
func TestLoggerThatCrashesDoesNotEndTheProcess(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			var said record
			o := options(t)
			o.Log = said.log
			s := opened(t, Spec{Stdout: "binary://" + script(t, "#!/bin/sh\nexec 5>&-; read line <&3; echo bad line >&2; exit 9"), Terminal: terminal}, o)
			p := launch(t, s, untilThere+`echo first; there "$1"; head -c "$0" /dev/zero && exit 7`, fmt.Sprint(3*pipeMax()), dir+"/go")
			eventually(t, "a word about the logger", func() bool { return said.count("exit status 9 bad line") == 1 })
			p.signal(dir + "/go")
			p.ended()
			if status := p.cmd.ProcessState.ExitCode(); status != 7 {
				t.Errorf("the process ended with status %d, want 7", status)
			}
			must(t, "drain", s.Drain(bounded(t)))
			must(t, "close", s.Close())
		})
	}
}

// restartable is a logger that appends what it reads to $2 and tells each of its
// starts in $2.starts. It ends after a line when $2.fail is there.
const restartable = `#!/bin/sh
echo $$ >>"$2.starts"
echo ready >&5; exec 5>&-
while read -r line; do
	echo "$line" >>"$2"
	[ -e "$2.fail" ] && { echo failed >&2; exit 9; }
done <&3
exit 0
`

// A logger that ends before its streams is started again, and goes on with what
// it has not read. Stock starts one once: its container waits for ever, or gets
// SIGPIPE (aws/shim-loggers-for-containerd#253).
func TestLoggerThatEndsIsStartedAgain(t *testing.T) {
	for _, scheme := range []string{"binary", "binary-v2"} {
		for _, policy := range []Policy{Block, Spill, Drop} {
			for _, terminal := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s terminal=%t", scheme, policy, terminal), func(t *testing.T) {
					leavesNothing(t)
					var said record
					o := options(t)
					o.Log, o.Logs.Policy = said.log, policy
					out := filepath.Join(t.TempDir(), "out")
					must(t, "have it fail", os.WriteFile(out+".fail", nil, 0o600))
					s := opened(t, Spec{Stdout: scheme + "://" + script(t, restartable) + "?out=" + out, Terminal: terminal}, o)
					p := launch(t, s, untilThere+`echo one; there "$1"; echo two; echo three`, "sh", out+".go")
					eventually(t, "a word about the logger", func() bool { return said.count("exit status 9 failed") == 1 })
					must(t, "have it work", os.Remove(out+".fail"))
					p.signal(out + ".go")
					p.ended()
					must(t, "drain", s.Drain(bounded(t)))
					fileHolds(t, out, "one\ntwo\nthree\n")
					starts, err := os.ReadFile(out + ".starts")
					must(t, "read starts", err)
					if n := strings.Count(string(starts), "\n"); n != 2 || s.State().Loggers[0].Restarts != 1 {
						t.Errorf("%d starts, and the state says %+v", n, s.State().Loggers[0])
					}
					must(t, "close", s.Close())
				})
			}
		}
	}
}

// At the end of its streams a logger has done its work: it is not started again.
func TestLoggerThatEndsWithItsStreamsIsNotStartedAgain(t *testing.T) {
	leavesNothing(t)
	out := filepath.Join(t.TempDir(), "out")
	s := opened(t, Spec{Stdout: "binary://" + script(t, restartable) + "?out=" + out}, options(t))
	l := s.loggers[0]
	launch(t, s, "echo hello").ended()
	receive(t, "the end of the logger", l.ended) // before anybody asks for it
	fileHolds(t, out, "hello\n")
	if n := s.State().Loggers[0].Restarts; n != 0 {
		t.Errorf("it was started %d times more", n)
	}
	must(t, "close", s.Close())
}

// What a logger that has failed has left is read by one more run of it, also
// when the container has ended meanwhile.
func TestWhatAFailedLoggerHasLeftIsReadAtTheEnd(t *testing.T) {
	leavesNothing(t)
	out := filepath.Join(t.TempDir(), "out")
	var said record
	o := options(t)
	o.Log = said.log
	// Each word is written by itself, and read before the logger ends.
	logger := script(t, "#!/bin/sh\nexec 5>&-; if [ -e \"$2.fail\" ]; then /bin/rm \"$2.fail\"; exit 1; fi; exec /bin/cat <&3 >>\"$2\"")
	must(t, "have it fail", os.WriteFile(out+".fail", nil, 0o600))
	s, err := Open(bounded(t), Spec{Stdout: "binary://" + script(t, "#!/bin/sh\necho ready >&5; exec "+logger+" \"$@\"") + "?out=" + out}, o)
	must(t, "open", err)
	launch(t, s, "echo last words").ended()
	must(t, "drain", s.Drain(bounded(t)))
	fileHolds(t, out, "last words\n")
	must(t, "close", s.Close())
}

// A logger whose program is gone by the time of its restart loses output, which
// is told, and holds nothing up.
func TestLoggerThatCannotBeStartedAgainIsTold(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	var said record
	o := options(t)
	o.Log = said.log
	logger := script(t, "#!/bin/sh\necho >&5; exec 5>&-; until [ -e "+dir+"/end ]; do /bin/sleep 0.01; done; exit 3")
	s := opened(t, Spec{Stdout: "binary-v2://" + logger}, o)
	launch(t, s, "echo lost").ended()
	must(t, "remove the logger", os.Remove(logger))
	must(t, "have the logger end", os.WriteFile(dir+"/end", nil, 0o600))
	must(t, "drain", s.Drain(bounded(t)))
	must(t, "close", s.Close())
	must(t, "settle", Settle(bounded(t)))
	for _, want := range []string{"exit status 3", "start logger " + logger, "5 bytes of output are lost"} {
		if said.count(want) != 1 {
			t.Errorf("said %q, want %q", said.all(), want)
		}
	}
}
