package integration

// OCI runtimes other than the newest runc: those of distributions, wrappers, and
// some that no distribution has.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/tools"
)

// runtimes is the folder of those that are fetched.
var runtimes = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	return tools.EnsureRuntimes(ctx, os.Stdout)
})

// ociRuntime is the path of one of them. The machines of the cgroup v2 tests
// have a crun of their own, and no old runc, which knows no more of cgroup v2
// than the new one.
func ociRuntime(t *testing.T, name string) string {
	t.Helper()
	if os.Getenv(tools.EnvBuilt) != "" {
		if name != "crun" {
			t.Skipf("the machine has no %s", name)
		}
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	dir, err := runtimes()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// allOfIt runs a container through all that the OCI runtime has to do for it.
func (m *member) allOfIt() {
	m.t.Helper()
	out := m.Path("fifo", m.id)
	if err := unix.Mkfifo(out, 0o600); err != nil {
		m.t.Fatal(err)
	}
	reader, err := os.OpenFile(out, os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.Remove(out)
	defer reader.Close()

	pid := m.create()
	m.start("")
	r := m.execRequest("e", "sh", "-c", "echo hello; exit 7")
	r.Stdout = out
	m.add(r)
	m.start("e")
	if status := m.wait("e"); status != 7 {
		m.t.Errorf("%s: an exec that exits with 7: %d", m.id, status)
	}
	said := make([]byte, 100)
	n, err := reader.Read(said)
	if string(said[:n]) != "hello\n" {
		m.t.Errorf("%s: an exec wrote %q, %v", m.id, said[:n], err)
	}
	m.delete("e")
	m.exec("killed", "sleep", "1000")
	m.kill("killed", unix.SIGKILL)
	if status := m.wait("killed"); status != 137 {
		m.t.Errorf("%s: an exec that is killed: %d", m.id, status)
	}
	// Its shell, which listens to signals once it has its child.
	eventually(m.t, func() error {
		if pids := m.pids(); len(pids) != 2 || !slices.Contains(pids, pid) {
			return fmt.Errorf("%s: the processes are %v, init is %d", m.id, pids, pid)
		}
		return nil
	})
	if got := m.stats(); got.memory == 0 || got.pids == 0 || got.cpu == 0 {
		m.t.Errorf("%s: statistics are %+v", m.id, got)
	}
	m.pause()
	m.resume()
	m.kill("", unix.SIGTERM)
	if status := m.wait(""); status != 9 {
		m.t.Errorf("%s: it ended with %d, want 9", m.id, status)
	}
	if err := m.tryKill("", unix.SIGTERM, false); !errdefs.IsNotFound(err) {
		m.t.Errorf("%s: a signal to what has ended gives %v", m.id, err)
	}
	if status := m.finish(); status != 9 {
		m.t.Errorf("%s: Delete says %d, want 9", m.id, status)
	}
}

// Each runtime is chosen in each way that there is.
func TestOCIRuntimesByEachWay(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	for _, name := range []string{"crun", "runc-1.1"} {
		t.Run(name, func(t *testing.T) {
			path := ociRuntime(t, name)
			inPATH := "PATH=" + filepath.Dir(path) + ":" + os.Getenv("PATH")
			link := filepath.Join(t.TempDir(), "containerd-shim-"+name+"-v2")
			if err := os.Symlink(programs.Shim, link); err != nil {
				t.Fatal(err)
			}
			for how, choose := range map[string]func(m *member) (env []string){
				"option-path": func(m *member) []string { m.options.BinaryName = path; return nil },
				"option-name": func(m *member) []string { m.options.BinaryName = name; return []string{inPATH} },
				"link":        func(m *member) []string { m.program = link; return []string{inPATH} },
				"link-and-file": func(m *member) []string {
					m.program = link
					return []string{l.configured(fmt.Sprintf("[runtimes.%q]\npath = %q", name, path))}
				},
				"file": func(m *member) []string {
					return []string{l.configured(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q", path))}
				},
				"options-body": func(m *member) []string {
					m.request.Options = packed(t, &runtimeoptions.Options{ConfigBody: fmt.Appendf(nil, "BinaryName = %q", path)})
					m.startOptions = m.request.Options
					return nil
				},
			} {
				m := l.prepare(strings.ReplaceAll(name, ".", "") + "-" + how)
				m.options.BinaryName = ""
				env := choose(m)
				m.boot(env...)
				m.allOfIt()
			}
		})
	}
}

// A wrapper that changes the container before the real runtime sees it, as those of
// devices and hooks do; and one whose runtime is as plain as can be: it knows no
// features, no way to hand over pidfds, no log.
func TestOCIRuntimeThatIsAWrapper(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	path := scripted(t, `if [ "$command" = create ]; then
	last=
	for a; do [ "$last" != --bundle ] || bundle=$a; last=$a; done
	$busybox sed -i 's/"PATH=/"WRAPPED=yes","PATH=/' "$bundle/config.json" || exit 9
fi`)
	m := l.prepare("wrapped", args("sh", "-c", `[ "$WRAPPED" = yes ] && exit 8; exit 1`))
	m.options.BinaryName = path
	m.boot()
	m.create()
	m.start("")
	if status := m.wait(""); status != 8 {
		t.Errorf("in a container that a wrapper has changed the program ends with %d, want 8", status)
	}
	m.finish()

	plain := scripted(t, `[ "$command" != features ] || { echo 'No help topic for features' >&2; exit 3; }
for a; do case $a in --pidfd*|--log*) echo "flag provided but not defined: $a" >&2; exit 1;; esac; done`)
	m = l.prepare("plain")
	m.options.BinaryName = ""
	file := fmt.Sprintf("runtime = 'plain'\n[runtimes.plain]\npath = %q\nlog_format = 'none'", plain)
	m.boot(l.configured(file))
	m.allOfIt()
	if info, stderr := l.info(file); info == nil || info.Features != nil {
		t.Errorf("-info: %v, %q", info, stderr)
	}
}

// Signals to init go through the runtime where it is asked for; execs are not
// its to signal. An exec that fails without a log is told in the words that the
// runtime has written to stderr.
func TestOCIRuntimeThatSendsTheSignals(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	path := scripted(t, `echo "$command: $MARK: $*" >>$0.calls; [ -e $0.refuse ] && [ $command = exec ] && { echo not now >&2; exit 3; }`)
	m := l.prepare("signals")
	m.options.BinaryName = ""
	m.boot(l.configured(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q\nsignals = 'runtime'", path)))
	m.allOfIt()
	var kills []string
	for _, call := range calls(t, path) {
		if strings.HasPrefix(call, "kill: ") {
			kills = append(kills, call[strings.LastIndex(call, " kill "):])
		}
	}
	if !slices.Equal(kills, []string{" kill signals 15"}) {
		t.Errorf("the runtime was asked to%s", lines(kills))
	}

	m = l.prepare("all")
	m.options.BinaryName = path
	m.boot().run()
	if err := os.WriteFile(path+".refuse", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := m.Path("fifo", m.id)
	if err := unix.Mkfifo(out, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(out)
	r := m.execRequest("e", "true")
	r.Stderr = out
	m.add(r)
	if _, err := m.tryStart("e"); err == nil || !strings.Contains(err.Error(), "OCI runtime exec failed: not now (container all, exit status 3)") {
		t.Errorf("an exec gives %v", err)
	}
	m.end()
}
