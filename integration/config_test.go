package integration

// What is said about a container, at each of its levels: built in, in the
// administrator's file, in a client's options, in annotations.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ourConfiguration skips a test of what containerd's own shim does not have.
func ourConfiguration(t *testing.T) {
	t.Helper()
	if onStock() {
		t.Skip("containerd's own shim has no configuration file and reads no TOML")
	}
}

// configured writes a configuration file and returns the variable that names it.
func (l *lone) configured(text string) (env string) {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return "CLEAT_CONFIG=" + path
}

// noting is an OCI runtime that writes down how it is called.
func noting(t *testing.T) string {
	t.Helper()
	return scripted(t, `echo "$command: $MARK: $*" >>$0.calls`)
}

// calls of a runtime that is noting, each once.
func calls(t *testing.T, runtime string) []string {
	t.Helper()
	text, err := os.ReadFile(runtime + ".calls")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// calledWith checks that these commands were called, and all calls with this in
// them.
func calledWith(t *testing.T, runtime, what string, commands ...string) {
	t.Helper()
	list := calls(t, runtime)
	for _, call := range list {
		if !strings.Contains(call, what) {
			t.Errorf("a call without %q: %s", what, call)
		}
	}
	for _, command := range commands {
		if !strings.Contains("\n"+strings.Join(list, "\n"), "\n"+command+": ") {
			t.Errorf("%s was not called, but\n%s", command, lines(list))
		}
	}
}

// The file says which runtime it is and how it is called, in all calls: also
// after the shim was killed and the file is gone.
func TestConfigRuntimeOfTheFile(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	for _, dies := range []bool{false, true} {
		runtime, root := noting(t), l.Path("configured")
		env := l.configured(fmt.Sprintf("runtime = 'mine'\n[runtimes.mine]\npath = %q\nroot = %q\nargs = ['--debug']\nenv = { MARK = 'marked' }\n", runtime, root))
		m := l.prepare(fmt.Sprint("file-", dies))
		m.options.BinaryName = ""
		m.boot(env)
		if err := os.Remove(strings.TrimPrefix(env, "CLEAT_CONFIG=")); err != nil {
			t.Fatal(err)
		}
		pid := m.create()
		m.start("")
		m.exec("e", "true")
		m.wait("e")
		if dies {
			if err := unix.Kill(m.shimPID(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.clean()
			eventually(t, func() error { return aliveNot(pid) })
		} else {
			m.end()
		}
		calledWith(t, runtime, "marked: --root "+filepath.Join(root, l.Namespace), "create", "start", "exec", "delete")
		calledWith(t, runtime, " --debug ")
	}
}

// A container joins a shim with a start of its own: what the file says then is
// what counts for it. One of a sandbox has no start, and gets what its shim's
// leader got.
func TestConfigOfMembers(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	first, second := noting(t), noting(t)
	file := func(runtime string) string {
		return l.configured(fmt.Sprintf("runtime = 'mine'\n[runtimes.mine]\npath = %q\n", runtime))
	}
	leader := l.prepare("leader", group("members"))
	leader.options.BinaryName = ""
	leader.boot(file(first)).run()
	joining := l.prepare("joining", group("members"))
	joining.options.BinaryName = ""
	joining.boot(file(second)).run()
	sandboxed := l.prepare("sandboxed", group("members"))
	sandboxed.options.BinaryName = ""
	sandboxed.dial(leader.shim.Address)
	sandboxed.run()
	if a, b, c := leader.shimPID(), joining.shimPID(), sandboxed.shimPID(); a != b || a != c {
		t.Errorf("they are in the shims %d, %d, %d", a, b, c)
	}
	for _, m := range []*member{joining, sandboxed, leader} {
		m.end()
	}
	calledWith(t, second, " joining")
	for _, call := range calls(t, first) {
		if strings.Contains(call, " joining") {
			t.Errorf("what joins gets the leader's runtime: %s", call)
		}
	}
	if !strings.Contains(lines(calls(t, first)), "create: : --root") || !strings.Contains(lines(calls(t, first)), "sandboxed") {
		t.Errorf("a container without a start does not get the leader's runtime, but\n%s", lines(calls(t, first)))
	}
}

// Options in TOML, in the message or in a file, which start has seen or has not,
// and runc's own message: all over what the file says.
func TestConfigOptionsGoOverTheFile(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	ofFile, ofClient := noting(t), noting(t)
	env := l.configured(fmt.Sprintf("runtime = 'of-file'\nstdio = 'copy'\n[runtimes.of-file]\npath = %q\n[runtimes.of-client]\npath = %q\nargs = ['--debug']\nenv = { MARK = 'file' }\n", ofFile, ofClient))
	body := []byte("BinaryName = 'of-client'\nRoot = '/run/cleat-of-client'\n[runtimes.of-client]\nenv = { MARK = 'client' }\n")
	path := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll("/run/cleat-of-client")
	inBody := &runtimeoptions.Options{TypeUrl: "whatever", ConfigBody: body}
	inFile := &runtimeoptions.Options{ConfigPath: path}
	for i, c := range []struct {
		started, created *runtimeoptions.Options
	}{
		{inBody, inBody}, {inFile, inFile}, {nil, inBody}, {inBody, inFile},
	} {
		m := l.prepare(fmt.Sprint("over-", i))
		m.options.BinaryName = ""
		if c.started != nil {
			m.startOptions = packed(t, c.started)
		}
		m.request.Options = packed(t, c.created)
		m.boot(env)
		m.run()
		m.end()
		calledWith(t, ofClient, "client: --root /run/cleat-of-client/"+l.Namespace, "create", "start", "delete")
		calledWith(t, ofClient, " --debug ")
		if err := os.Remove(ofClient + ".calls"); err != nil {
			t.Fatal(err)
		}
	}
	// By name, and by path, which takes none of the file's tables.
	m := l.prepare("by-name")
	m.options.BinaryName = "of-client"
	m.boot(env)
	m.run().end()
	calledWith(t, ofClient, ": file: --root", "create")
	m = l.prepare("by-path")
	m.options.BinaryName = ofFile
	m.boot(env)
	m.run().end()
	calledWith(t, ofFile, ": : --root", "create", "start", "delete")
}

// ctr names a file of options. It is read at start and at Create, and what it says
// of the runtime counts in every call.
func TestConfigPathGivenToCtr(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	d := sharedDaemon(t)
	const id = "ctr-config-path"
	runtime := noting(t)
	path := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "runtime = 'mine'\n[runtimes.mine]\npath = %q\nenv = { MARK = 'marked' }\n", runtime), 0o600); err != nil {
		t.Fatal(err)
	}
	ctr(t, d, run([]string{"-d", "--runtime-config-path", path}, id, forever...)...)
	if out := ctr(t, d, "tasks", "exec", "--exec-id", "e", id, "echo", "hello"); out != "hello\n" {
		t.Errorf("an exec writes %q", out)
	}
	ctr(t, d, "tasks", "kill", "-s", "SIGKILL", id)
	eventually(t, func() error {
		if task := listed(t, d, id); task.status != "STOPPED" {
			return fmt.Errorf("after SIGKILL the task is %+v", task)
		}
		return nil
	})
	ctr(t, d, "tasks", "delete", "--force", id)
	ctr(t, d, "containers", "delete", id)
	calledWith(t, runtime, "marked: ", "create", "start", "exec", "delete")
}

// The last word is an annotation's, if the file allows it.
func TestConfigAnnotationsGoOverAll(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	annotated := func(s *specs.Spec) {
		s.Annotations = map[string]string{"io.containerd.cleat.stdio": "copy"}
	}
	for i, c := range []struct {
		file   string
		change []func(*specs.Spec)
		direct bool
	}{
		{"stdio = 'direct'", nil, true},
		{"stdio = 'copy'", nil, false},
		{"stdio = 'direct'", []func(*specs.Spec){annotated}, false},
		{"stdio = 'direct'\nannotations = ['stdio']", []func(*specs.Spec){annotated}, false},
	} {
		m := l.prepare(fmt.Sprint("annotated-", i), c.change...)
		stdout := m.Path("fifo", m.id)
		if err := unix.Mkfifo(stdout, 0o600); err != nil {
			t.Fatal(err)
		}
		m.request.Stdout = stdout
		m.boot(l.configured(c.file))
		m.run()
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", m.state("").Pid))
		if err != nil {
			t.Fatal(err)
		}
		if direct := link == stdout; direct != c.direct {
			t.Errorf("%s: stdout of the container is %s", c.file, link)
		}
		m.end()
		os.Remove(stdout)
	}
	for _, allowed := range []string{"[]", "['drain-limit']"} {
		m := l.prepare("refused", annotated).boot(l.configured("annotations = " + allowed))
		_, err := m.tryCreate(l.ctx)
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "io.containerd.cleat.stdio is not allowed by the configuration") {
			t.Errorf("an annotation that %s does not allow gives %v", allowed, err)
		}
		m.shutdown()
		m.clean()
	}
	// Updates, too.
	m := l.prepare("updated").boot(l.configured("annotations = ['stdio']")).run()
	_, err := m.shim.Update(l.ctx, &task.UpdateTaskRequest{ID: m.id, Annotations: map[string]string{"io.containerd.cleat.drain-limit": "1s"}})
	if err == nil || !strings.Contains(err.Error(), "is not allowed by the configuration") {
		t.Errorf("an update with an annotation that is not allowed gives %v", err)
	}
	m.end()
}

// How long a runtime may take is the file's to say.
func TestConfigLimits(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	m := l.prepare("limits")
	m.options.BinaryName = scripted(t, `[ $command = create ] && exec $busybox sleep 1000`)
	m.boot(l.configured("[limits]\nlaunch = '300ms'"))
	_, err := m.tryCreate(l.ctx)
	if err == nil || !strings.Contains(err.Error(), "OCI runtime create failed: no end within 300ms, killed") {
		t.Errorf("a runtime that hangs gives %v", err)
	}
	m.shutdown()
	m.clean()
}

// The folder of the sockets is the file's, unless containerd gives one.
func TestConfigSocketDir(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	dir := l.Path("sock")
	env := l.configured(fmt.Sprintf("socket_dir = %q", dir))
	m := l.prepare("given").boot(env)
	if filepath.Dir(m.shim.Address) != l.Sockets() {
		t.Errorf("the shim listens on %s, containerd asked for %s", m.shim.Address, l.Sockets())
	}
	m.run().end()
	m = l.prepare("configured")
	m.noSocketDir = true
	m.boot(env)
	if filepath.Dir(m.shim.Address) != dir {
		t.Errorf("the shim listens on %s, the file asks for %s", m.shim.Address, dir)
	}
	m.run().end()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder of the sockets: %v, %v", left, err)
	}
	os.Remove(dir)
}

// A file that cannot be used fails the start, -info and, where an option names it,
// Create: in one sentence that names it, soon, and nothing is left. An option that
// cannot be used fails what sees it.
func TestConfigThatIsBad(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("#\n", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, loop := filepath.Join(dir, "fifo"), filepath.Join(dir, "loop")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink(loop, loop)); err != nil {
		t.Fatal(err)
	}
	file := func(text string) string { return strings.TrimPrefix(l.configured(text), "CLEAT_CONFIG=") }
	for what, c := range map[string]struct{ file, want string }{
		"missing":     {"/no/such/config.toml", "/no/such/config.toml: no such file"},
		"a folder":    {dir, dir + " is not a file"},
		"a FIFO":      {fifo, fifo + " is not a file"},
		"a device":    {"/dev/zero", "/dev/zero is not a file"},
		"a loop":      {loop, loop + ": too many levels of symbolic links"},
		"unreadable":  {"/proc/self/mem", "/proc/self/mem: input/output error"}, // root may read all others
		"too large":   {large, large + " is larger than"},
		"not TOML":    {file("<xml/>"), "line 1: "},
		"not text":    {file("\x7fELF\x02\x01\x01\x00"), "line 1: "},
		"wrong type":  {file("[limits]\ndrain = true"), `line 2: drain: "true" is not a duration`},
		"no table":    {file("runtimes = 'crun'"), "line 1: runtimes: "},
		"unknown key": {file("\n[runtimes.crun]\nrot = '/run'"), `line 3: unknown key "runtimes.crun.rot", the closest known one is "runtimes.NAME.root"`},
	} {
		says := func(who, said string, began time.Time) {
			t.Helper()
			if took := time.Since(began); took > soon {
				t.Errorf("%s, %s: it took %s", what, who, took)
			}
			if said = strings.TrimSpace(said); !strings.Contains(said, c.want) || strings.Contains(said, "\n") {
				t.Errorf("%s, %s: %s\nwant %s", what, who, said, c.want)
			}
		}
		began := time.Now()
		info, stderr := l.infoWith("CLEAT_CONFIG="+c.file, nil)
		if info != nil {
			t.Errorf("%s: -info says %v", what, info)
		}
		says("-info", stderr, began)

		m := l.prepare("bad-path").boot()
		m.request.Options = packed(t, &runtimeoptions.Options{ConfigPath: c.file})
		began = time.Now()
		_, err := m.tryCreate(l.ctx)
		says("Create", strings.Join(strings.Fields(fmt.Sprint(err)), " "), began) // errgrpc adds a line for the class
		m.shutdown()
		m.clean()
		nothingOf(t, m)

		m = l.prepare("bad-file")
		began = time.Now()
		_, err = m.tryBoot("CLEAT_CONFIG=" + c.file)
		says("start", fmt.Sprint(err), began)
		entries, err := os.ReadDir(m.bundle)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !strings.Contains("config.json log rootfs work", e.Name()) {
				t.Errorf("%s: %s is left in the bundle", what, e.Name())
			}
		}
		m.clean()
	}
	for what, want := range map[string]string{
		"BinaryNam = 'x'":  `config_body, line 1: unknown key "BinaryNam", the closest known one is "BinaryName"`,
		"IoUid = 'x'":      "config_body, line 1: IoUid: it cannot be of the type string",
		"BinaryName = 'x":  "config_body, line 1: ",
		"BinaryName = '/'": "OCI runtime create failed",
	} {
		m := l.prepare("bad-options").boot() // which has not seen them
		m.request.Options = packed(t, &runtimeoptions.Options{ConfigBody: []byte(what)})
		if _, err := m.tryCreate(l.ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Create with %s: %v\nwant %s", what, err, want)
		}
		m.shutdown()
		m.clean()
		if strings.Contains(want, "runtime") {
			continue
		}
		m = l.prepare("bad-options")
		m.startOptions = packed(t, &runtimeoptions.Options{ConfigBody: []byte(what)})
		if _, err := m.tryBoot(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("start with %s: %v\nwant %s", what, err, want)
		}
		m.clean()
	}
}

// Options of a type that is another shim's are told in the log, and the container
// runs all the same.
func TestConfigOptionsOfAnotherTypeAreTold(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	m := l.prepare("other-type").boot()
	m.request.Options = packed(t, &task.ConnectRequest{ID: "x"})
	m.run()
	eventually(t, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !strings.Contains(l.logs.String(), "options of the type containerd.task.v3.ConnectRequest are not for this shim, and ignored") {
			return fmt.Errorf("the log does not tell it")
		}
		return nil
	})
	m.end()
}
