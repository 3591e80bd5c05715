package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// kind is a Docker, and how it comes to use the shim under test.
type kind struct {
	name    string
	release string   // of Debian
	dropIn  bool     // the shim is found under the stock one's name
	config  string   // daemon.json
	flags   []string // of docker run and docker create
}

// What daemon.json says of runtimes. PLACE is the place's folder.
const (
	nothing = `{}`
	named   = `{"runtimes": {"cleat": {"runtimeType": "io.containerd.cleat.v2", "options": {"ConfigPath": "PLACE/cleat.toml"}}}}`
)

// cleatConfig is the file that named points to.
const cleatConfig = "stdio = \"copy\"\n"

var kinds = []kind{
	{name: "20.10-drop-in", release: "bookworm", dropIn: true, config: nothing},
	{name: "26.1-drop-in", release: "trixie", dropIn: true, config: nothing},
	{name: "26.1-runtime", release: "trixie", config: nothing, flags: []string{"--runtime", "io.containerd.cleat.v2"}},
	{name: "26.1-daemon.json", release: "trixie", config: named, flags: []string{"--runtime", "cleat"}},
}

// stockKinds are for the comparison: what Debian packages, as it is.
var stockKinds = []kind{
	{name: "20.10-stock", release: "bookworm", config: nothing},
	{name: "26.1-stock", release: "trixie", config: nothing},
}

// engine is a containerd and a dockerd on a machine of their own.
type engine struct {
	*machine
	kind kind

	containerd, dockerd *service
}

// service is a daemon that runs.
type service struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has been waited for
}

// startEngine makes a machine and starts both daemons.
func startEngine(ctx context.Context, k kind) (*engine, error) {
	tree, err := tools.EnsureDocker(ctx, os.Stdout, k.release)
	if err != nil {
		return nil, err
	}
	p, err := place.New()
	if err != nil {
		return nil, err
	}
	e := &engine{kind: k}
	err = func() (err error) {
		if e.machine, err = newMachine(p, tree); err != nil {
			return err
		}
		if err := e.furnish(); err != nil {
			return err
		}
		if err := e.startContainerd(ctx); err != nil {
			return err
		}
		if err := e.startDockerd(ctx); err != nil {
			return err
		}
		return e.importImage(ctx)
	}()
	if err != nil {
		return nil, errors.Join(err, p.Remove())
	}
	return e, nil
}

// furnish puts the shim where containerd finds it, and writes the daemons'
// configuration.
func (e *engine) furnish() error {
	if !stock {
		names := []string{tools.ShimName}
		if e.kind.dropIn {
			names = []string{"containerd-shim-runc-v2"}
		}
		program, err := os.ReadFile(programs.Shim)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := os.WriteFile(e.Path("bin", name), program, 0o755); err != nil {
				return err
			}
		}
	}
	for file, text := range map[string]string{
		"daemon.json": strings.ReplaceAll(e.kind.config, "PLACE", e.Dir),
		"cleat.toml":  cleatConfig,
		"containerd.toml": fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ntemp = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n",
			e.Path("root"), e.Path("state"), e.Path("ctemp"), e.Path("c.sock")),
	} {
		if err := os.WriteFile(e.Path(file), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// startContainerd starts containerd, for the first time or again.
func (e *engine) startContainerd(ctx context.Context) (err error) {
	e.containerd, err = e.serve("containerd.log", "/usr/bin/containerd", "--config", e.Path("containerd.toml"))
	if err != nil {
		return err
	}
	return e.untilReady(ctx, e.containerd, func() *exec.Cmd {
		return e.command(ctx, "/usr/bin/ctr", "--address", e.Path("c.sock"), "version")
	})
}

// startDockerd starts dockerd, for the first time or again. Containers outlive
// it (--live-restore). It makes no network and no rules of a firewall.
func (e *engine) startDockerd(ctx context.Context) (err error) {
	if err := os.Remove(e.Path("dockerd.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // a killed one leaves it, and its number may be another's now
	}
	e.dockerd, err = e.serve("dockerd.log", "/usr/sbin/dockerd",
		"--config-file", e.Path("daemon.json"), "--containerd", e.Path("c.sock"),
		"--containerd-namespace", e.Namespace, "--containerd-plugins-namespace", e.Namespace+"-plugins",
		"--data-root", e.Path("data"), "--exec-root", e.Path("exec"), "--pidfile", e.Path("dockerd.pid"),
		"--host", "unix://"+e.Path("d.sock"), "--live-restore", "--cgroup-parent", "/"+e.Namespace,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge=none", "--iptables=false", "--ip6tables=false",
		"--ip-forward=false", "--ip-masq=false", "--userland-proxy=false")
	if err != nil {
		return err
	}
	return e.untilReady(ctx, e.dockerd, func() *exec.Cmd { return e.docker(ctx, "version") })
}

// serve starts a daemon that writes to a log of the place.
func (e *engine) serve(log, name string, args ...string) (*service, error) {
	file, err := os.OpenFile(e.Path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := e.command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = file, file
	// Ctrl-C in the terminal is for us, who then remove the place.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &service{cmd: cmd, ended: make(chan struct{})}
	go func() { // ends with the process, which the place ends
		cmd.Wait()
		close(s.ended)
	}()
	return s, nil
}

// untilReady asks a daemon by a command until it answers.
func (e *engine) untilReady(ctx context.Context, s *service, ask func() *exec.Cmd) error {
	return until(ctx, func() error {
		select {
		case <-s.ended:
			return fmt.Errorf("%s ended at once: %s\n%s", s.cmd, s.cmd.ProcessState, e.logs())
		default:
		}
		if out, err := ask().CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// kill ends a daemon as a crash would.
func (s *service) kill() {
	s.cmd.Process.Kill()
	<-s.ended
}

// docker is a docker command, ready to run.
func (e *engine) docker(ctx context.Context, args ...string) *exec.Cmd {
	return e.command(ctx, "/usr/bin/docker", append([]string{"--host", "unix://" + e.Path("d.sock")}, args...)...)
}

// imageName is what the image is called.
const imageName = "busybox"

func (e *engine) importImage(ctx context.Context) error {
	img, err := image.New(programs.Busybox)
	if err != nil {
		return err
	}
	files := mutate.Extract(img)
	defer files.Close()
	cmd := e.docker(ctx, "import", "--change", "ENV PATH=/bin", "-", imageName)
	cmd.Stdin = files
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import the image: %w: %s", err, out)
	}
	return nil
}

// leftovers tells what is there of containers that should be gone.
func (e *engine) leftovers() []string {
	found := e.Place.Leftovers(e.pid(), e.containerd.cmd.Process.Pid, e.dockerd.cmd.Process.Pid)
	found = slices.DeleteFunc(found, func(line string) bool {
		// dockerd makes it and leaves it.
		return line == "temporary file "+e.Path("tmp", "docker-tmp") || strings.HasPrefix(line, "mount ")
	})
	for _, mount := range e.mounts() {
		// dockerd's own, as long as it runs.
		if !slices.Contains([]string{"data", "exec", "run", "s", "machine", "run/containerd/s"}, strings.TrimPrefix(mount, "mount "+e.Dir+"/")) {
			found = append(found, mount)
		}
	}
	for _, pattern := range []string{"exec/runtime-*/*/*", "exec/containerd/*", "run/containerd/runc/*/*", "run/docker/runtime-*/*/*"} {
		states, _ := filepath.Glob(e.Path(pattern))
		for _, state := range states {
			if filepath.Base(state) != "daemon" {
				found = append(found, "state "+state)
			}
		}
	}
	return found
}

// nothingLeft fails the test when anything is left on e.
func (e *engine) nothingLeft(t *testing.T) {
	t.Helper()
	if left := place.Settled(settleTime, e.leftovers); len(left) > 0 {
		t.Errorf("left over:\n  %s", strings.Join(left, "\n  "))
	}
}

// logs is the end of what the daemons and the shims have written.
func (e *engine) logs() string {
	var text strings.Builder
	for _, name := range []string{"containerd.log", "dockerd.log"} {
		all, _ := os.ReadFile(e.Path(name))
		lines := bytes.Split(all, []byte("\n"))
		fmt.Fprintf(&text, "%s:\n%s\n", name, bytes.Join(lines[max(0, len(lines)-30):], []byte("\n")))
	}
	return text.String()
}

// answer is what a command wrote and how it ended.
type answer struct {
	stdout, stderr string
	code           int
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd, stdin io.Reader) answer {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out.String(), errs.String())
	}
	return answer{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}
