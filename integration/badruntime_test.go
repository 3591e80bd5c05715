package integration

// OCI runtimes that do not do what they are asked to.

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Create answers with a sentence, soon, and nothing is left.
func TestOCIRuntimesThatFailInCreate(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("not a program"), 0o644); err != nil {
		t.Fatal(err)
	}
	noFormat := filepath.Join(dir, "no-format")
	if err := os.WriteFile(noFormat, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	on := func(body string) string {
		return scripted(t, "[ $command = create ] || exec "+programs.Runc+` "$@"; `+body)
	}
	for name, c := range map[string]struct {
		path, keys, want string
	}{
		"missing":        {path: filepath.Join(dir, "none"), want: "no such file or directory"},
		"not-executable": {path: text, want: "permission denied"},
		"folder":         {path: dir, want: "permission denied"},
		"no-program":     {path: noFormat, want: "exec format error"},
		"no-interpreter": {path: interpreted(t, "#!/no/such/shell\n"), want: "no such file or directory"},
		"hangs":          {path: on("exec $busybox sleep 1000"), want: "no end within 500ms, killed"},
		"hangs-later":    {path: on(`runc "$@"; exec $busybox sleep 1000`), want: "no end within 500ms, killed"},
		"idle":           {path: on("exit 0"), want: "the runtime told no pid: open"},
		"rubbish-pid":    {path: on("echo rubbish >$pidfile; exit 0"), want: `holds "rubbish\n"`},
		"killed":         {path: on("kill -9 $$"), want: "exit status 137"},
		"killed-later":   {path: on(`runc "$@"; kill -9 $$`), want: "exit status 137"},
		"speechless":     {path: on("exit 5"), want: "it wrote no log"},
		"logs-text":      {path: on(`while [ "$1" != --log ]; do shift; done; echo 'level=error msg="out of luck"' >>$2; exit 1`), want: "out of luck"},
		"text":           {path: on(`while [ "$1" != --log-format ]; do shift; done; [ $2 = text ] || exit 7; exit 1`), keys: "log_format = 'text'", want: "exit status 1)"},
		"on-stderr":      {path: on("case \" $* \" in *' --log '*) exit 7;; esac; echo out of luck >&2; exit 1"), keys: "log_format = 'none'", want: "OCI runtime create failed: out of luck (container on-stderr, exit status 1)"},
	} {
		m := l.prepare(name)
		m.options.BinaryName = ""
		limit := "" // slow machines need time for what does end
		if strings.HasPrefix(name, "hangs") {
			limit = "[limits]\nlaunch = '500ms'\n"
		}
		m.boot(l.configured(fmt.Sprintf("runtime = 'x'\n%s[runtimes.x]\npath = %q\n%s", limit, c.path, c.keys)))
		_, err := m.tryCreate(within(t, soon))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "OCI runtime create failed: ") || strings.Count(err.Error(), "\n") > 1 { // errgrpc adds a line for the class
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
		m.shutdown()
		m.clean()
		nothingOf(t, m)
	}
}

// interpreted makes a script.
func interpreted(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// nothingOf checks that nothing is left of one container.
func nothingOf(t *testing.T, m *member) {
	t.Helper()
	eventually(t, func() error {
		for _, left := range m.Leftovers() {
			if strings.Contains(left, m.id) {
				return fmt.Errorf("left over of %s: %s", m.id, left)
			}
		}
		return nil
	})
}

// What a runtime without a log says on stderr is in the error, of execs too,
// whatever the client wants of stderr; and what a container writes is the
// client's.
func TestOCIRuntimeThatSpeaksOnStderr(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	refuses := `case " $* " in *' --log '*|*' --log-format '*) echo unknown flag >&2; exit 1;; esac; `
	path := scripted(t, refuses+`[ $command = exec ] && { echo "no $command today" >&2; exit 4; }`)
	m := l.prepare("stderr", args("sh", "-c", "echo words >&2; exec sleep 1000"))
	m.options.BinaryName = ""
	stderr := m.Path("fifo", m.id)
	if err := unix.Mkfifo(stderr, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(stderr)
	reader, err := os.OpenFile(stderr, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	m.request.Stderr = stderr
	m.boot(l.configured(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q\nlog_format = 'none'", path)))
	m.run()
	said := make([]byte, 100)
	if n, err := reader.Read(said); string(said[:n]) != "words\n" {
		t.Errorf("the container wrote %q, %v", said[:n], err)
	}
	r := m.execRequest("e", "true")
	r.Stderr = stderr
	m.add(r)
	if _, err := m.tryStart("e"); err == nil || !strings.Contains(err.Error(), "no exec today (container stderr, exit status 4)") {
		t.Errorf("an exec gives %v", err)
	}
	m.add(m.execRequest("n", "true"))
	if _, err := m.tryStart("n"); err == nil || !strings.Contains(err.Error(), "no exec today (container stderr, exit status 4)") {
		t.Errorf("an exec without stderr gives %v", err)
	}
	m.end()
}

// -info says what is wrong, soon; a runtime without features is no error.
func TestInfoOfRuntimesThatFail(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("not a program"), 0o644); err != nil {
		t.Fatal(err)
	}
	noFormat := filepath.Join(dir, "no-format")
	if err := os.WriteFile(noFormat, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path, want string // an error, or none
	}{
		"missing":        {filepath.Join(dir, "none"), "no such file or directory"},
		"not executable": {text, "permission denied"},
		"hangs":          {scripted(t, "exec $busybox sleep 1000"), "no answer within"},
		"rubbish":        {scripted(t, "echo rubbish; exit 0"), ""},
		"fails":          {scripted(t, "echo what >&2; exit 1"), ""},
		"silent":         {scripted(t, "exit 0"), ""},
		"killed":         {scripted(t, "kill -9 $$"), ""},
		"killed midway":  {scripted(t, `printf '{"ociVersionMin": "1.0.0", "mount'; kill -9 $$`), ""},
		"no program":     {noFormat, "exec format error"},
		"folder":         {dir, "is a directory"},
	} {
		began := time.Now()
		info, stderr := l.info("runtime = 'x'\n[runtimes.x]\npath = " + fmt.Sprintf("%q", c.path))
		if took := time.Since(began); took > soon {
			t.Errorf("%s: it took %s", name, took)
		}
		if c.want != "" {
			if info != nil || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: %v, %q\nwant %s", name, info, stderr, c.want)
			}
			continue
		}
		if info == nil || info.Features != nil || stderr != "" {
			t.Errorf("%s: %v, %q", name, info, stderr)
		}
	}
	eventually(t, func() error { // of those that hang, too
		for _, p := range l.Processes() {
			if strings.Contains(p.Command, dir) || strings.Contains(p.Command, "sleep 1000") {
				return fmt.Errorf("left over: %s", p)
			}
		}
		return nil
	})
}

// -info of an ordinary user who may not read the file.
func TestInfoOfAFileThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	path := l.Path("unreadable.toml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(programs.Shim)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.CommandContext(within(t, soon), "/proc/self/fd/3", "-info")
	cmd.ExtraFiles = []*os.File{program} // its folder may be closed to the user
	cmd.Dir = "/"
	cmd.Env = append(l.Environ(programs.Dir), "CLEAT_CONFIG="+path)
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	stdout, stderr, code := finish(t, cmd)
	if code == 0 || stdout != "" || !strings.Contains(stderr, path+": permission denied") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("-info ended with %d and wrote %q, %q", code, stdout, stderr)
	}
}

// The features are those of the runtime that is configured, called as it is.
func TestInfoIsOfTheConfiguredRuntime(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	path := scripted(t, `[ "$*" = "--flag features" ] && echo "{\"ociVersionMin\":\"1.0.0\",\"mountOptions\":[\"of-$MARK\"]}"; exit 0`)
	info, stderr := l.info(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q\nargs = ['--flag']\nenv = { MARK = 'mine' }", path))
	if info == nil || !strings.Contains(string(info.Features.GetValue()), "of-mine") {
		t.Errorf("%v, %q", info, stderr)
	}
	// As CRI asks: with the table of the handler's options.
	info, stderr = l.infoOf(packed(t, &runtimeoptions.Options{ConfigBody: []byte("BinaryName = 'y'")}),
		fmt.Sprintf("[runtimes.y]\npath = %q\nargs = ['--flag']\nenv = { MARK = 'yours' }", path))
	if info == nil || !strings.Contains(string(info.Features.GetValue()), "of-yours") {
		t.Errorf("%v, %q", info, stderr)
	}
	// And of real ones, in full.
	for _, name := range []string{"crun"} {
		info, stderr := l.info(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q", ociRuntime(t, name)))
		if info == nil || !strings.Contains(string(info.Features.GetValue()), `"mountOptions"`) {
			t.Errorf("%s: %v, %q", name, info, stderr)
		}
	}
}

// info runs -info with a configuration file. There is no info when it fails.
func (l *lone) info(file string) (info *types.RuntimeInfo, stderr string) {
	l.t.Helper()
	return l.infoOf(nil, file)
}

func (l *lone) infoOf(options proto.Message, file string) (info *types.RuntimeInfo, stderr string) {
	l.t.Helper()
	return l.infoWith(l.configured(file), options)
}

// infoWith is info with the variable that names the file.
func (l *lone) infoWith(env string, options proto.Message) (info *types.RuntimeInfo, stderr string) {
	l.t.Helper()
	cmd := exec.CommandContext(within(l.t, soon), programs.Shim, "-info")
	if options != nil {
		input, err := proto.Marshal(options)
		if err != nil {
			l.t.Fatal(err)
		}
		cmd.Stdin = bytes.NewReader(input)
	}
	cmd.Env = append(l.Environ(programs.Dir), env)
	cmd.WaitDelay = time.Second
	stdout, stderr, code := finish(l.t, cmd)
	if code != 0 {
		if stdout != "" {
			l.t.Errorf("-info fails and writes %q", stdout)
		}
		return nil, stderr
	}
	info = &types.RuntimeInfo{}
	if err := proto.Unmarshal([]byte(stdout), info); err != nil {
		l.t.Fatal(err)
	}
	return info, stderr
}
