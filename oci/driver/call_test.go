package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Docker and Kubernetes derive exit codes and reasons from the runtime's words.
func TestRuntimesWordsAreUnchanged(t *testing.T) {
	const line = `{"level":"error","msg":"exec: \"x\": executable file not found in $PATH","time":"2026-01-02T03:04:05Z"}`
	const words = `exec: "x": executable file not found in $PATH`
	for _, c := range []struct {
		name   string
		script string // in which $log is the log
		want   string
	}{
		{"one line", `printf '%s\n' "$line" >>"$log"`, words},
		{"the last of some", `printf '{"level":"error","msg":"first"}\n%s\n' "$line" >>"$log"`, words},
		{"the last error, then others", `printf '%s\n{"level":"warning","msg":"w"}\n{"level":"info","msg":"i"}\n' "$line" >>"$log"`, words},
		{"no line end", `printf '%s' "$line" >>"$log"`, words},
		{"fatal", `echo '{"level":"fatal","msg":"out of luck"}' >>"$log"`, "out of luck"},
		{"youki's way", `echo '{"timestamp":"t","level":"ERROR","message":"no such cgroup","target":"x"}' >>"$log"`, "no such cgroup"},
		{"space around it", `printf '%s\n' '{"level":"error","msg":"  here \n"}' >>"$log"`, "here"},
		{"rubbish after it", `printf '%s\n\000\377{"level":\n[]\n"error"\n{"level":7}\n' "$line" >>"$log"`, words},
		{"log and output", `echo output >&2; printf '%s\n' "$line" >>"$log"`, words},
		{"output alone", `echo said on stdout; echo said on stderr >&2`, "said on stdout\nsaid on stderr"},
		{"rubbish and output", `echo rubbish >>"$log"; echo said on stderr >&2`, "said on stderr"},
		{"output like an error of go-runc", `echo "x did not terminate successfully: exit status 9: y" >&2`, "x did not terminate successfully: exit status 9: y"},
		{"no log, no words", `rm -f "$log"`, "@ did not terminate successfully: exit status 3"},
		{"a link in the log's place", `echo '{"level":"error","msg":"secret"}' >"$0.secret"; ln -sf "$0.secret" "$log"`, "@ did not terminate successfully: exit status 3"},
		{"a FIFO in the log's place", `rm -f "$log"; mkfifo "$log"`, "@ did not terminate successfully: exit status 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScripted(t, "line='"+line+"'\n"+c.script+"\nexit 3\n")
			err := s.Start(t.Context(), container)
			e := failure(t, err)
			want := strings.ReplaceAll(c.want, "@", s.path)
			if e.Message != want {
				t.Errorf("%q, want %q", e.Message, want)
			}
			if e.Status != 3 || e.Operation != "start" || e.Container != container {
				t.Errorf("%+v", e)
			}
			if full := fmt.Sprintf("OCI runtime start failed: %s (container %s, exit status 3)", want, container); err.Error() != full {
				t.Errorf("%q, want %q", err, full)
			}
		})
	}
}

// A shared log shows the error of another call, and grows with every exec.
func TestEachCallHasALogOfItsOwn(t *testing.T) {
	s := newScripted(t, `echo "{\"level\":\"error\",\"msg\":\"of $command\"}" >>"$log"; exit 1`)
	var all sync.WaitGroup
	for range 8 {
		for operation, call := range s.calls(t) {
			all.Go(func() {
				if e := failure(t, call()); e.Message != "of "+operation || e.Operation != operation || e.Status != 1 {
					t.Errorf("%s: %+v", operation, e)
				}
			})
		}
	}
	all.Wait()
}

// calls are all that can be asked of a runtime about a container.
func (s *scripted) calls(t testing.TB) map[string]func() error {
	streams := null(t)
	return map[string]func() error{
		"create": func() error { _, err := s.Create(t.Context(), container, streams); return err },
		"start":  func() error { return s.Start(t.Context(), container) },
		"exec": func() error {
			_, err := s.Exec(t.Context(), container, "e", specs.Process{}, streams)
			return err
		},
		"delete":     func() error { return s.Delete(t.Context(), container, false) },
		"pause":      func() error { return s.Pause(t.Context(), container) },
		"resume":     func() error { return s.Resume(t.Context(), container) },
		"update":     func() error { return s.Update(t.Context(), container, &specs.LinuxResources{}) },
		"checkpoint": func() error { return s.Checkpoint(t.Context(), container, CheckpointOptions{}) },
		"restore": func() error {
			_, err := s.Restore(t.Context(), container, RestoreOptions{}, streams)
			return err
		},
	}
}

func TestExitStatusIsTold(t *testing.T) {
	for script, want := range map[string]int{
		"exit 1": 1, "exit 126": 126, "exit 255": 255, "kill -KILL $$": 137, "kill -SEGV $$": 139, "kill -TERM $$": 143,
	} {
		s := newScripted(t, "ulimit -c 0\n"+script)
		for operation, call := range s.calls(t) {
			if e := failure(t, call()); e.Status != want {
				t.Errorf("%s with %q: status %d", operation, script, e.Status)
			}
		}
	}
}

// A call that hangs is an error in the end, and nothing of it goes on behind
// everybody's back.
func TestCallThatHangsIsKilledWithAllThatItRuns(t *testing.T) {
	s := newScripted(t, `sleep 100 & echo $! >"$0.$command.pid"; wait`)
	s.Limits = Limits{Launch: 100 * time.Millisecond, Checkpoint: 100 * time.Millisecond, Control: 100 * time.Millisecond}
	var all sync.WaitGroup
	for operation, call := range s.calls(t) {
		if operation == "exec" || operation == "checkpoint" || operation == "restore" || operation == "create" || operation == "delete" {
			all.Go(func() {
				e := failure(t, call())
				if !strings.Contains(e.Message, "100ms") || !errors.Is(e, context.DeadlineExceeded) || e.Status != 137 {
					t.Errorf("%s: %+v", operation, e)
				}
				// Unless it was killed before it came so far.
				if _, err := os.Stat(s.path + "." + operation + ".pid"); err == nil {
					pid := readNumber(t, s.path+"."+operation+".pid")
					eventually(t, "the end of what the runtime runs", func() bool { return !running(pid) })
				}
			})
		}
	}
	all.Wait()
}

func TestCallersContextEndsACall(t *testing.T) {
	s := newScripted(t, `echo $$ >"$0.pid"; exec sleep 100`)
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		// The time that is named is that which there was.
		if e := failure(t, s.Pause(ctx, container)); !errors.Is(e, context.DeadlineExceeded) || strings.Contains(e.Message, "1m") {
			t.Errorf("%+v", e)
		}
	})
	t.Run("cause", func(t *testing.T) {
		os.Remove(s.path + ".pid")
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("nobody wants it any more")
		go func() {
			readNumber(t, s.path+".pid")
			cancel(cause)
		}()
		if e := failure(t, s.Pause(ctx, container)); !errors.Is(e, cause) || !strings.Contains(e.Message, cause.Error()) {
			t.Errorf("%+v", e)
		}
	})
	t.Run("over before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if e := failure(t, s.Pause(ctx, container)); !errors.Is(e, context.Canceled) || e.Status != 0 {
			t.Errorf("%+v", e)
		}
	})
}

func TestRuntimeThatCannotBeRun(t *testing.T) {
	dir := t.TempDir()
	plain, noInterpreter := filepath.Join(dir, "plain"), filepath.Join(dir, "no-interpreter")
	write(t, plain, "")
	write(t, noInterpreter, "#!/nonexistent/sh\n")
	if err := os.Chmod(noInterpreter, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ binary, words string }{
		"not in PATH":    {"no-such-runtime", `exec: "no-such-runtime": executable file not found in $PATH`},
		"not there":      {filepath.Join(dir, "nothing"), "fork/exec " + filepath.Join(dir, "nothing") + ": no such file or directory"},
		"no program":     {plain, "fork/exec " + plain + ": permission denied"},
		"no interpreter": {noInterpreter, "fork/exec " + noInterpreter + ": no such file or directory"},
		"a folder":       {dir, "fork/exec " + dir + ": permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScriptedWith(t, oci.Options{}, "")
			s.options.BinaryName = c.binary
			for operation, call := range s.calls(t) {
				e := failure(t, call())
				if e.Message != c.words || e.Status != 0 || !errdefs.IsFailedPrecondition(e) || !NotRun(e) {
					t.Errorf("%s: %q, status %d, %v", operation, e.Message, e.Status, e.Err)
				}
				if want := fmt.Sprintf("OCI runtime %s failed: %s (container %s)", operation, c.words, container); e.Error() != want {
					t.Errorf("%q, want %q", e, want)
				}
			}
			if _, err := s.LookPath(); name == "not in PATH" && !errors.Is(err, exec.ErrNotFound) {
				t.Errorf("look up: %v", err)
			}
		})
	}
}

func TestHugeLogIsReadFromItsEnd(t *testing.T) {
	s := newScripted(t, `
yes '{"level":"error","msg":"early"}' | head -c 3000000 >>"$log"
echo '{"level":"error","msg":"late"}' >>"$log"
exit 1`)
	if e := failure(t, s.Start(t.Context(), container)); e.Message != "late" {
		t.Errorf("%q", e.Message)
	}
	s = newScripted(t, `printf '{"level":"error","msg":"%0200000d"}\n' 7 >>"$log"; echo short >&2; exit 1`)
	if e := failure(t, s.Start(t.Context(), container)); e.Message != "short" {
		t.Errorf("%.100q…", e.Message)
	}
}

// A runtime that does not stop talking took the shim's memory, and with it all
// containers of the pod.
func TestHugeOutputIsBounded(t *testing.T) {
	s := newScripted(t, `yes | head -c 200000000; exit 1`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e := failure(t, s.Start(t.Context(), container))
	runtime.ReadMemStats(&after)
	if len(e.Message) > maxOutput || e.Status != 1 {
		t.Errorf("%d bytes of output, status %d", len(e.Message), e.Status)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
		t.Errorf("%d bytes of memory for it", took)
	}
}

func TestPidThatIsNotTold(t *testing.T) {
	for name, c := range map[string]struct{ script, words string }{
		"no file":    {``, "the runtime told no pid"},
		"empty":      {`: >"$pidfile"`, `holds ""`},
		"rubbish":    {`echo pid >"$pidfile"`, `holds "pid\n"`},
		"zero":       {`echo 0 >"$pidfile"`, `holds "0\n"`},
		"negative":   {`echo -7 >"$pidfile"`, `holds "-7\n"`},
		"two":        {`echo 7 8 >"$pidfile"`, `holds "7 8\n"`},
		"endless":    {`yes 7 | head -c 1000000 >"$pidfile"`, "is larger than"},
		"a link":     {`echo 7 >"$0.pid"; ln -s "$0.pid" "$pidfile"`, "symbolic links"},
		"a FIFO":     {`mkfifo "$pidfile"`, "not a regular file"},
		"a folder":   {`mkdir "$pidfile"`, "not a regular file"},
		"an old one": {``, "the runtime told no pid"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, c.script+"\necho '{\"level\":\"error\",\"msg\":\"of no matter\"}' >>\"$log\"\nexit 0\n")
			if name == "an old one" {
				write(t, s.bundle.InitPidFile(), "1\n")
				write(t, s.bundle.Path("exec-e.pid"), "1\n")
			}
			for _, operation := range []string{"create", "exec", "restore"} {
				if e := failure(t, s.calls(t)[operation]()); !strings.Contains(e.Message, c.words) || e.Status != 0 {
					t.Errorf("%s: %+v", operation, e)
				}
			}
			os.RemoveAll(s.bundle.InitPidFile()) // what a successful create may leave
		})
	}
}

// What was made before the failure has to be ended by who asked for it.
func TestPidOfACallThatFailsIsToldToo(t *testing.T) {
	s := newScripted(t, `echo 4711 >"$pidfile"; exit 1`)
	streams := null(t)
	if pid, err := s.Create(t.Context(), container, streams); pid != 4711 || err == nil {
		t.Errorf("create: %d, %v", pid, err)
	}
	if pid, err := s.Exec(t.Context(), container, "e", specs.Process{}, streams); pid != 4711 || err == nil {
		t.Errorf("exec: %d, %v", pid, err)
	}
	if pid, err := s.Restore(t.Context(), container, RestoreOptions{}, streams); pid != 4711 || err == nil {
		t.Errorf("restore: %d, %v", pid, err)
	}
}

// The file is all that names the process if the shim is killed as well.
func TestPidFileOfACreateThatWasKilledIsKept(t *testing.T) {
	s := newScripted(t, `echo 4711 >"$pidfile"; exec sleep 100`)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		readNumber(t, s.bundle.InitPidFile())
		cancel()
	}()
	if pid, err := s.Create(ctx, container, null(t)); pid != 4711 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", pid, err)
	}
	if pid := readNumber(t, s.bundle.InitPidFile()); pid != 4711 {
		t.Errorf("the file names %d", pid)
	}
	os.Remove(s.bundle.InitPidFile())
}

// containerd removes a bundle that it cannot load; the runtime's state, the
// cgroup and the processes must still go.
func TestDeleteWithoutABundle(t *testing.T) {
	s := newScripted(t, `[ -z "$log" ] || exit 9; echo "it is not well" >&2; [ -e "$0.fail" ] && exit 1; exit 0`)
	if err := os.Remove(string(s.bundle)); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), container, true); err != nil {
		t.Error(err)
	}
	write(t, s.path+".fail", "")
	if e := failure(t, s.Delete(t.Context(), container, true)); e.Message != "it is not well" || e.Status != 1 {
		t.Errorf("%+v", e)
	}
}

func TestDeleteOfWhatTheRuntimeDoesNotKnowIsNoError(t *testing.T) {
	for _, c := range []struct {
		words string
		known bool
	}{
		{"container does not exist", false},                                                      // runc
		{"container " + container + " does not exist", false},                                    // youki
		{"cannot open directory `@/ns/" + container + "`: No such file or directory", false},     // crun
		{"error opening file `@/ns/" + container + "/status`: No such file or directory", false}, // crun 0.x
		{"cannot open directory `/sys/fs/cgroup/x`: No such file or directory", true},
		{"cannot delete container that is not stopped", true},
		{"device or resource busy", true},
	} {
		root := t.TempDir()
		words := strings.ReplaceAll(c.words, "@", root)
		s := newScriptedWith(t, oci.Options{Root: root}, "cat >>\"$log\" <<'END'\n"+`{"level":"error","msg":"`+words+`"}`+"\nEND\nexit 1\n")
		if err := s.Delete(t.Context(), container, false); (err != nil) != c.known {
			t.Errorf("%s: %v", words, err)
		}
	}
}

func TestStaleLogIsNotTaken(t *testing.T) {
	s := newScripted(t, `exit 1`)
	write(t, s.bundle.Path(fmt.Sprintf("log-start-%d-%d.json", os.Getpid(), begun()+1)), `{"level":"error","msg":"of another shim"}`)
	if e := failure(t, s.Start(t.Context(), container)); strings.Contains(e.Message, "another") {
		t.Error(e)
	}
}

// The runtime gets the container's own descriptors; /dev/null where there is
// none, for it would use a closed one for something else.
func TestStreams(t *testing.T) {
	s := newScripted(t, `
fds=$(readlink /proc/$$/fd/0 && readlink /proc/$$/fd/1 && readlink /proc/$$/fd/2)
echo "$fds" >"$0.fds"
echo "to stdout"; echo "to stderr" >&2; exit 1`)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for operation, call := range map[string]func(Streams) error{
		"create": func(streams Streams) error { _, err := s.Create(t.Context(), container, streams); return err },
		"exec": func(streams Streams) error {
			_, err := s.Exec(t.Context(), container, "e", specs.Process{}, streams)
			return err
		},
		"restore": func(streams Streams) error {
			_, err := s.Restore(t.Context(), container, RestoreOptions{}, streams)
			return err
		},
	} {
		e := failure(t, call(Streams{Stdout: out}))
		fds, err := os.ReadFile(s.path + ".fds")
		if want := "/dev/null\n" + out.Name() + "\n/dev/null\n"; err != nil || string(fds) != want {
			t.Errorf("%s: descriptors %q, %v", operation, fds, err)
		}
		if strings.Contains(e.Message, "to std") {
			t.Errorf("%s: the container's output is in the error: %s", operation, e.Message)
		}
	}
	if text, err := os.ReadFile(out.Name()); err != nil || string(text) != strings.Repeat("to stdout\n", 3) {
		t.Errorf("%q, %v", text, err)
	}
	// With a terminal the output is the runtime's own.
	terminal := Streams{ConsoleSocket: "/run/socket"}
	if e := failure(t, func() error { _, err := s.Create(t.Context(), container, terminal); return err }()); e.Message != "to stdout\nto stderr" {
		t.Errorf("create: %q", e.Message)
	}
	if e := failure(t, func() error {
		_, err := s.Exec(t.Context(), container, "e", specs.Process{}, terminal)
		return err
	}()); e.Message != "to stdout\nto stderr" {
		t.Errorf("exec: %q", e.Message)
	}
}

// The environment of an exec holds secrets.
func TestSpecOfAnExecStaysInTheBundle(t *testing.T) {
	s := newScripted(t, `stat -c '%a %n' "$process" >"$0.stat"; cat "$process" >"$0.spec"; env >"$0.env"; echo 1 >"$pidfile"`)
	t.Setenv("NOTIFY_SOCKET", "/run/not/yours")
	t.Setenv("CLEAT_TEST", "yours")
	before, err := filepath.Glob(filepath.Join(os.TempDir(), "runc-process*"))
	if err != nil {
		t.Fatal(err)
	}
	process := specs.Process{Args: []string{"a", "b"}, Env: []string{"SECRET=x"}, Cwd: "/", Terminal: true}
	if pid, err := s.Exec(t.Context(), container, "e1", process, null(t)); pid != 1 || err != nil {
		t.Fatal(pid, err)
	}
	if b, err := os.ReadFile(s.path + ".stat"); err != nil || string(b) != "600 "+s.bundle.Path("exec-e1.json")+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := os.ReadFile(s.path + ".spec"); err != nil || !strings.Contains(string(b), `"SECRET=x"`) || !strings.Contains(string(b), `"terminal":true`) {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := os.ReadFile(s.path + ".env"); err != nil || strings.Contains(string(b), "NOTIFY_SOCKET") || !strings.Contains(string(b), "CLEAT_TEST=yours") {
		t.Errorf("%q, %v", b, err)
	}
	if after, _ := filepath.Glob(filepath.Join(os.TempDir(), "runc-process*")); len(after) > len(before) {
		t.Errorf("it is elsewhere too: %s", after)
	}
}

// Exec ids are part of file names. Stock's exec "init" takes the pid file of the
// container's init process (trap 20 of the protocol's list).
func TestExecOfAnyIDLeavesTheBundlesFilesAlone(t *testing.T) {
	s := newScripted(t, `echo 2 >"$pidfile"`)
	write(t, s.bundle.InitPidFile(), "1")
	write(t, s.bundle.Path("options.json"), "{}")
	for _, id := range []string{"init", "options", "exit", "config"} {
		if pid, err := s.Exec(t.Context(), container, id, specs.Process{}, null(t)); pid != 2 || err != nil {
			t.Errorf("exec %s: %d, %v", id, pid, err)
		}
	}
	if pid := readNumber(t, s.bundle.InitPidFile()); pid != 1 {
		t.Errorf("init.pid names %d", pid)
	}
	s.mustLeave(t, "init.pid", "options.json")
	os.Remove(s.bundle.InitPidFile())
	os.Remove(s.bundle.Path("options.json"))
}

// What the runtime is called with, in each call.
func TestArguments(t *testing.T) {
	options := oci.Options{Root: "/r", NoPivotRoot: true, NoNewKeyring: true, SystemdCgroup: true, CriuImagePath: "/i", CriuWorkPath: "/w"}
	terminal := Streams{ConsoleSocket: "/s"}
	for name, c := range map[string]struct {
		options oci.Options
		call    func(s *scripted) error
		want    string // @ is the bundle; the log is left out
	}{
		"create": {oci.Options{}, func(s *scripted) error {
			_, err := s.Create(t.Context(), container, null(t))
			return err
		}, "--root /run/containerd/runc/ns --log-format json create --bundle @ --pid-file @/init.pid some-container"},
		"create with all": {options, func(s *scripted) error {
			_, err := s.Create(t.Context(), container, terminal)
			return err
		}, "--root /r/ns --log-format json --systemd-cgroup create --bundle @ --pid-file @/init.pid --console-socket /s --no-pivot --no-new-keyring some-container"},
		"exec": {options, func(s *scripted) error {
			_, err := s.Exec(t.Context(), container, "e", specs.Process{}, null(t))
			return err
		}, "--root /r/ns --log-format json --systemd-cgroup exec --process @/exec-e.json --detach --pid-file @/exec-e.pid some-container"},
		"exec in a terminal": {oci.Options{}, func(s *scripted) error {
			_, err := s.Exec(t.Context(), container, "e", specs.Process{}, terminal)
			return err
		}, "--root /run/containerd/runc/ns --log-format json exec --process @/exec-e.json --detach --pid-file @/exec-e.pid --console-socket /s some-container"},
		"start":           {options, func(s *scripted) error { return s.Start(t.Context(), container) }, "--root /r/ns --log-format json --systemd-cgroup start some-container"},
		"delete":          {oci.Options{}, func(s *scripted) error { return s.Delete(t.Context(), container, false) }, "--root /run/containerd/runc/ns --log-format json delete some-container"},
		"delete by force": {oci.Options{}, func(s *scripted) error { return s.Delete(t.Context(), container, true) }, "--root /run/containerd/runc/ns --log-format json delete --force some-container"},
		"pause":           {oci.Options{}, func(s *scripted) error { return s.Pause(t.Context(), container) }, "--root /run/containerd/runc/ns --log-format json pause some-container"},
		"resume":          {oci.Options{}, func(s *scripted) error { return s.Resume(t.Context(), container) }, "--root /run/containerd/runc/ns --log-format json resume some-container"},
		"update":          {oci.Options{}, func(s *scripted) error { return s.Update(t.Context(), container, nil) }, "--root /run/containerd/runc/ns --log-format json update --resources=- some-container"},
		"checkpoint with all": {options, func(s *scripted) error {
			return s.Checkpoint(t.Context(), container, CheckpointOptions{
				ImagePath: "/image", WorkPath: "/work", ParentPath: "../parent", Exit: true, OpenTCP: true, ExternalUnixSockets: true,
				Terminal: true, FileLocks: true, EmptyNamespaces: []string{"network", "uts"}, CgroupsMode: "soft",
			})
		}, "--root /r/ns --log-format json --systemd-cgroup checkpoint --image-path /image --work-path /work --parent-path ../parent --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode soft --empty-ns network --empty-ns uts some-container"},
		"checkpoint to the image of the options": {options, func(s *scripted) error {
			return s.Checkpoint(t.Context(), container, CheckpointOptions{WorkPath: "/work"})
		}, "--root /r/ns --log-format json --systemd-cgroup checkpoint --image-path /i --work-path /work --leave-running some-container"},
		"restore with all": {options, func(s *scripted) error {
			_, err := s.Restore(t.Context(), container, RestoreOptions{ImagePath: "/image", WorkPath: "/work", ParentPath: "../parent"}, terminal)
			return err
		}, "--root /r/ns --log-format json --systemd-cgroup restore --image-path /image --work-path /work --parent-path ../parent --detach --pid-file @/init.pid --console-socket /s --no-pivot --bundle @ some-container"},
		"restore with the paths of the options": {options, func(s *scripted) error {
			_, err := s.Restore(t.Context(), container, RestoreOptions{}, null(t))
			return err
		}, "--root /r/ns --log-format json --systemd-cgroup restore --image-path /i --work-path /w --detach --pid-file @/init.pid --no-pivot --bundle @ some-container"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScriptedWith(t, c.options, `[ -z "$pidfile" ] || echo 1 >"$pidfile"`)
			if err := c.call(s); err != nil {
				t.Fatal(err)
			}
			args := s.args(t)
			for i, arg := range args {
				if arg == "--log" {
					if !strings.HasPrefix(args[i+1], s.bundle.Path("log-")) {
						t.Errorf("the log is %s", args[i+1])
					}
					args = append(args[:i], args[i+2:]...)
					break
				}
			}
			if got := strings.Join(args, " "); got != strings.ReplaceAll(c.want, "@", string(s.bundle)) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			os.Remove(s.bundle.InitPidFile())
		})
	}
}

func TestUpdateHandsOverTheResources(t *testing.T) {
	s := newScripted(t, `cat >"$0.stdin"`)
	limit := int64(1 << 20)
	if err := s.Update(t.Context(), container, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(s.path + ".stdin"); err != nil || strings.TrimSpace(string(b)) != `{"memory":{"limit":1048576}}` {
		t.Errorf("%q, %v", b, err)
	}
}

func TestFeatures(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   string
	}{
		"told":         {`echo '{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0"}'`, `{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0"}`},
		"not known":    {`echo "no such command" >&2; exit 1`, ""},
		"rubbish":      {`echo "features: all"`, ""},
		"nothing":      {``, ""},
		"without end":  {`yes '{'`, ""},
		"hangs":        {`exec sleep 100`, ""},
		"is no object": {`echo '[]'`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, c.script)
			if c.want == "" && (name == "hangs" || name == "without end") {
				s.Limits.Control = 200 * time.Millisecond
			}
			got, err := s.Features(t.Context())
			if string(got) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%s, %v", got, err)
			}
			if err != nil && !strings.Contains(err.Error(), s.path) {
				t.Errorf("the error does not name the runtime: %v", err)
			}
		})
	}
}

func TestLookPathIsAbsolute(t *testing.T) {
	s := newScripted(t, "")
	if path, err := s.LookPath(); err != nil || path != s.path {
		t.Errorf("%s, %v", path, err)
	}
	t.Setenv("PATH", filepath.Dir(s.path))
	s.options.BinaryName = "runtime"
	if path, err := s.LookPath(); err != nil || path != s.path {
		t.Errorf("%s, %v", path, err)
	}
	s.options.BinaryName = ""
	if _, err := s.LookPath(); err == nil || !strings.Contains(err.Error(), DefaultBinary) {
		t.Errorf("%v", err)
	}
}

// No descriptor may be left of a call, whatever became of it.
func TestCallsLeaveNoDescriptors(t *testing.T) {
	s := newScripted(t, `[ -z "$pidfile" ] || echo 1 >"$pidfile"; [ -e "$0.fail" ] && exit 1; exit 0`)
	calls := s.calls(t)
	round := func() {
		for _, call := range calls {
			call()
		}
	}
	round()
	os.Remove(s.bundle.InitPidFile())
	before := descriptors(t)
	for range 5 {
		round()
	}
	write(t, s.path+".fail", "")
	for range 5 {
		round()
	}
	eventually(t, "that no descriptor is left", func() bool { return descriptors(t) <= before })
}

func descriptors(t testing.TB) int {
	t.Helper()
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return len(names)
}

// begun is how many calls were ever begun.
func begun() uint64 {
	_, total := Calls()
	return total
}

func TestCallsUnderWayAreListed(t *testing.T) {
	s := newScripted(t, `until [ -e "$(dirname "$log")/go" ]; do sleep 0.01; done`)
	ended := make(chan error, 1)
	go func() { ended <- s.Pause(t.Context(), container) }()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		running, _ := Calls()
		if len(running) == 1 && running[0].Operation == "pause" && running[0].Container == container {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("while pause runs the calls are %v", running)
		}
	}
	write(t, filepath.Join(string(s.bundle), "go"), "")
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	os.Remove(s.bundle.Path("go"))
	if running, _ := Calls(); len(running) != 0 {
		t.Errorf("left over: %v", running)
	}
}
