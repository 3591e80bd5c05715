package integration

// The systemd cgroup driver: containers whose cgroup is a scope that systemd
// makes. These tests run where systemd is the init; elsewhere they are skipped,
// and `make test-v2` brings a machine in which it is.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/tools"
)

// scopeMemory is small enough to be used up at once and enough for a shell.
const scopeMemory = 24 << 20

// withSystemd is the containerd of tests that need systemd.
func withSystemd(t *testing.T) (context.Context, *daemon.Daemon) {
	t.Helper()
	if info, err := os.Stat("/run/systemd/system"); err != nil || !info.IsDir() {
		t.Skip("systemd is not the init here")
	}
	d := sharedDaemon(t)
	return d.Context(bounded(t)), d
}

// scoped is a container in a scope of its own below system.slice.
type scoped struct {
	t    *testing.T
	ctx  context.Context
	d    *daemon.Daemon
	id   string
	task containerd.Task
	exit <-chan containerd.ExitStatus
}

// startScoped creates and starts a container that runs a shell command. A nil
// for options means that containerd passes none.
func startScoped(t *testing.T, ctx context.Context, d *daemon.Daemon, id string, runc *options.Options, command string) *scoped {
	t.Helper()
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	img, err := client.GetImage(ctx, image.Name)
	if err != nil {
		t.Fatal(err)
	}
	spec := containerd.WithNewSpec(
		oci.WithImageConfig(img),
		oci.WithProcessArgs("sh", "-c", command),
		oci.WithCgroup("system.slice:cleat:"+id),
		oci.WithMemoryLimit(scopeMemory),
		oci.WithMemorySwap(scopeMemory),
	)
	var passed any
	if runc != nil {
		passed = runc
	}
	container, err := client.NewContainer(ctx, id, containerd.WithImage(img), containerd.WithNewSnapshot(id, img),
		containerd.WithRuntime(runtimeName, passed), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { container.Delete(context.WithoutCancel(ctx), containerd.WithSnapshotCleanup) })
	task, err := container.NewTask(ctx, cio.NullIO)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() { task.Delete(context.WithoutCancel(ctx), containerd.WithProcessKill) })
	exit, err := task.Wait(ctx)
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	if err := task.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	return &scoped{t: t, ctx: ctx, d: d, id: id, task: task, exit: exit}
}

// unit is the scope's name in systemd.
func (s *scoped) unit() string { return "cleat-" + s.id + ".scope" }

// cgroup is the scope's path in the hierarchy.
func (s *scoped) cgroup() string { return "/system.slice/" + s.unit() }

// holds checks that a process is in the scope, or below it: crun puts
// containers into a cgroup of their own there.
func (s *scoped) holds(what string, pid uint32) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		s.t.Errorf("where is %s: %v", what, err)
	} else if path := strings.TrimPrefix(strings.TrimSpace(string(text)), "0::"); path != s.cgroup() && !strings.HasPrefix(path, s.cgroup()+"/") {
		s.t.Errorf("%s is in cgroup %s, not in %s", what, path, s.cgroup())
	}
}

// exec runs a shell command in the container and returns its exit status.
func (s *scoped) exec(id, command string) uint32 {
	s.t.Helper()
	process, err := s.task.Exec(s.ctx, id, &specs.Process{
		Args: []string{"sh", "-c", command}, Cwd: "/", Env: []string{"PATH=/bin"},
	}, cio.NullIO)
	if err != nil {
		s.t.Fatalf("exec %s: %v", id, err)
	}
	exit, err := process.Wait(s.ctx)
	if err != nil {
		s.t.Fatalf("wait for exec %s: %v", id, err)
	}
	if err := process.Start(s.ctx); err != nil {
		s.t.Fatalf("start exec %s: %v", id, err)
	}
	status := s.status("exec "+id, exit)
	if _, err := process.Delete(s.ctx); err != nil {
		s.t.Errorf("delete exec %s: %v", id, err)
	}
	return status
}

// stats checks that the figures are those of the scope.
func (s *scoped) stats() {
	s.t.Helper()
	metric, err := s.task.Metrics(s.ctx)
	if err != nil {
		s.t.Errorf("stats: %v", err)
		return
	}
	message, err := typeurl.UnmarshalAny(metric.Data)
	if err != nil {
		s.t.Errorf("stats: %v", err)
		return
	}
	figures, ok := message.(*cgroup2.Metrics)
	if !ok {
		s.t.Errorf("stats are a %T, not those of cgroup v2", message)
		return
	}
	if n := figures.GetPids().GetCurrent(); n != 1 {
		s.t.Errorf("stats count %d processes, want 1", n)
	}
	if used := figures.GetMemory().GetUsage(); used == 0 || used > scopeMemory {
		s.t.Errorf("stats say that %d bytes of %d are in use", used, scopeMemory)
	}
}

// status waits for an exit.
func (s *scoped) status(what string, exit <-chan containerd.ExitStatus) uint32 {
	s.t.Helper()
	status := <-exit
	if err := status.Error(); err != nil {
		s.t.Fatalf("wait for the exit of %s: %v", what, err)
	}
	return status.ExitCode()
}

// delete deletes the task and the container, and checks that nothing is left
// of them, neither here nor in systemd.
func (s *scoped) delete() {
	s.t.Helper()
	if _, err := s.task.Delete(s.ctx); err != nil {
		s.t.Errorf("delete: %v", err)
	}
	s.gone()
}

func (s *scoped) gone() {
	s.t.Helper()
	ctr(s.t, s.d, "containers", "delete", s.id)
	nothingLeft(s.t, s.d)
	eventually(s.t, func() error {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", s.cgroup())); err == nil {
			return fmt.Errorf("the cgroup %s is left", s.cgroup())
		}
		if state := s.state(); state != "not-found inactive" {
			return fmt.Errorf("%s is %s", s.unit(), state)
		}
		return nil
	})
}

// state is what systemd says of the scope.
func (s *scoped) state() string {
	out, err := exec.CommandContext(s.ctx, "systemctl", "show", "--value", "--property=LoadState,ActiveState", s.unit()).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("unknown (%v: %s)", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// A container's whole life in a scope, for both ways to ask for one: the
// option that CRI sets, and the form slice:prefix:name of the cgroup's path by
// which alone other clients say it.
func TestSystemdCgroupDriver(t *testing.T) {
	ctx, d := withSystemd(t)
	for name, runc := range map[string]*options.Options{
		"runc by option": {SystemdCgroup: true},
		"runc by path":   nil,
		"crun by option": {BinaryName: "crun", SystemdCgroup: true},
		"crun by path":   {BinaryName: "crun"},
	} {
		t.Run(name, func(t *testing.T) {
			if runc != nil && runc.BinaryName != "" {
				if _, err := exec.LookPath(runc.BinaryName); err != nil {
					if os.Getenv(tools.EnvBuilt) != "" {
						t.Fatal(err) // the machine that is made for this test has it
					}
					t.Skip(err)
				}
			}
			events, err := d.Subscribe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s := startScoped(t, ctx, d, strings.ReplaceAll(name, " ", "-"), runc, "exec sleep 1000")
			s.holds("init", s.task.Pid())
			if state := s.state(); state != "loaded active" {
				t.Errorf("systemd says that %s is %s", s.unit(), state)
			}
			if status := s.exec("seven", "exit 7"); status != 7 {
				t.Errorf("an exec that exits with 7: exit status %d", status)
			}
			s.stats()
			if status := s.exec("eater", "exec tail /dev/zero"); status != 137 {
				t.Errorf("an exec that uses up the memory: exit status %d, want 137", status)
			}
			if _, err := events.Until(ctx, s.id, func(list []daemon.Event) bool { return index(list, "/tasks/oom", "") >= 0 }); err != nil {
				t.Errorf("an exec was killed for want of memory, init lives: %v", err)
			}
			if err := s.task.Kill(ctx, unix.SIGKILL); err != nil {
				t.Errorf("kill: %v", err)
			}
			if status := s.status("init", s.exit); status != 137 {
				t.Errorf("killed: exit status %d", status)
			}
			s.delete()
		})
	}
}

// systemd removes a scope as soon as its last process is gone, and with it the
// counters that tell why: whoever looks for them after the exit finds nothing.
func TestSystemdOOMIsToldBeforeTheExit(t *testing.T) {
	ctx, d := withSystemd(t)
	events, err := d.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := startScoped(t, ctx, d, "eater", nil, "exec tail /dev/zero")
	if status := s.status("init", s.exit); status != 137 {
		t.Errorf("init used up the memory: exit status %d, want 137", status)
	}
	list, err := events.Until(ctx, s.id, func(list []daemon.Event) bool { return index(list, "/tasks/exit", "") >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	if oom, exit := index(list, "/tasks/oom", ""), index(list, "/tasks/exit", ""); oom < 0 || oom > exit {
		t.Errorf("no OOM event before the exit: %v", list)
	}
	s.delete()
}

// containerd's `delete` action is told nothing of the driver; it has to find
// out what the dead shim knew.
func TestSystemdScopeEndsWithAKilledShim(t *testing.T) {
	ctx, d := withSystemd(t)
	events, err := d.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := startScoped(t, ctx, d, "orphan", nil, "exec sleep 1000")
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.task.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	var parent int
	_, after, _ := strings.Cut(string(text), ") ")
	if _, err := fmt.Sscanf(after, "%s %d", new(string), &parent); err != nil {
		t.Fatalf("find the shim: %v in %q", err, text)
	}
	if err := unix.Kill(parent, unix.SIGKILL); err != nil {
		t.Fatalf("kill the shim: %v", err)
	}
	// Waiting for the task is of no use: the answer would be the shim's.
	list, err := events.Until(ctx, s.id, func(list []daemon.Event) bool { return index(list, "/tasks/delete", "") >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	if exit := index(list, "/tasks/exit", ""); exit < 0 || list[exit].ExitStatus != 137 {
		t.Errorf("no exit with status 137 after the shim was killed: %v", list)
	}
	s.gone()
}

// index is the place of the first event with a topic about a process.
func index(list []daemon.Event, topic, exec string) int {
	return slices.IndexFunc(list, func(e daemon.Event) bool { return e.Topic == topic && e.ExecID == exec })
}
