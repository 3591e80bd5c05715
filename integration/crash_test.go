package integration

// A shim that dies at the wrong moment. What containerd does then is to run the
// action `delete`: it must leave nothing and tell the truth.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestCrashOfAShimIsTold ends a shim by a fault of its own. What Go's runtime has
// to say of it is in containerd's log, whoever reads that of the shim, with the
// container's real exit status.
func TestCrashOfAShimIsTold(t *testing.T) {
	t.Parallel()
	if onStock() {
		t.Skip("containerd's own shim leaves no report")
	}
	d := ownDaemon(t, config())
	b := newBox(t, d, "crash", []string{"sh", "-c", "exit 7"})
	events, err := d.Subscribe(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.create(cio.NullIO)
	ended := b.wait(b.task)
	if err := b.task.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	if code := ended(); code != 7 {
		t.Errorf("the container ended with %d, want 7", code)
	}
	if err := unix.Kill(b.shimPID(), unix.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	list, err := events.Until(within(t, soon), b.ID(), func(list []daemon.Event) bool { return indexOf(list, "/tasks/delete", "") >= 0 })
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if (e.Topic == "/tasks/exit" || e.Topic == "/tasks/delete") && e.ExitStatus != 7 {
			t.Errorf("the container ended with 7, and this is told:\n%s", eventLines(list))
		}
	}
	eventually(t, func() error {
		for _, words := range []string{"ended by a fault of its own", "SIGSEGV", "goroutine "} {
			if log := d.Log(); !strings.Contains(log, words) {
				return fmt.Errorf("containerd's log lacks %q:\n%s", words, tail(log, 20))
			}
		}
		return nil
	})
}

// fragile is a container whose shim is going to be killed, with a root filesystem
// that the shim mounts. It ends with its status when there is a file.
type fragile struct {
	*member
	status int
	end    string // the file
	told   bool   // somebody was told of the status
}

func (l *lone) fragile(id string, status int, change ...func(*specs.Spec)) *fragile {
	l.t.Helper()
	dir := l.t.TempDir()
	f := &fragile{status: status, end: filepath.Join(dir, "end")}
	f.member = l.prepare(id, append(change, func(s *specs.Spec) {
		s.Root.Path = "rootfs"
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "bind", Source: dir, Options: []string{"bind"}})
	}, args("sh", "-c", fmt.Sprintf("while [ ! -e /run/end ]; do usleep 2000; done; exit %d", status)))...)
	f.request.Rootfs = []*types.Mount{{Type: "bind", Source: l.rootfs(), Options: []string{"rbind", "ro"}}}
	return f
}

// live goes through the container's life, as far as the shim comes. It tells
// whether that was to the end.
func (f *fragile) live() bool {
	if _, err := f.tryCreate(f.ctx); err != nil {
		return false
	}
	if _, err := f.tryStart(""); err != nil {
		return false
	}
	if _, err := f.shim.Exec(f.ctx, f.execRequest("e", "true")); err != nil {
		return false
	}
	if _, err := f.tryStart("e"); err != nil {
		return false
	}
	if err := os.WriteFile(f.end, nil, 0o600); err != nil {
		f.t.Error(err)
	}
	exit, err := f.tryWait(f.ctx, "")
	if err != nil {
		return false
	}
	f.told = true
	if int(exit.ExitStatus) != f.status {
		f.t.Errorf("%s ended with %d, want %d", f.id, exit.ExitStatus, f.status)
	}
	_, err = f.tryDelete(f.ctx, "")
	return err == nil
}

// crashed is what containerd does when the shim is gone. Who was told of a status
// is told the same again; of an end that nobody was told of, the shim may have
// known as little.
func (f *fragile) crashed() {
	f.t.Helper()
	began := time.Now()
	cmd := f.action("delete", "-bundle", f.bundle)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		f.t.Errorf("delete after %s: %v: %s", f.id, err, stderr.String())
	}
	if stderr.Len() > 0 {
		f.t.Logf("delete after %s, in %s: %s", f.id, time.Since(began).Round(time.Millisecond), stderr.String())
	}
	answer := &task.DeleteResponse{}
	if err := proto.Unmarshal(stdout.Bytes(), answer); err != nil {
		f.t.Error(err)
	}
	if got := int(answer.ExitStatus); got != f.status && (f.told || got != 137) {
		f.t.Errorf("%s: delete says %d; it ended with %d, which was told: %t", f.id, got, f.status, f.told)
	}
	if err := os.RemoveAll(f.bundle); err != nil {
		f.t.Error(err)
	}
}

// TestShimKilledInACallOfTheRuntime kills a shim before, in and after each call
// of the OCI runtime, which is a process of its own and goes on.
func TestShimKilledInACallOfTheRuntime(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, command := range []string{"create", "start", "exec", "delete"} {
		for when, script := range map[string]string{
			"before": `kill -9 $PPID; at-gate; runc "$@"; exit`, // it would go on when the action is done
			"during": `kill -9 $PPID; runc "$@"; exit`,
			"after":  `runc "$@"; kill -9 $PPID; exit`,
		} {
			g := newGate(t)
			f := l.fragile("killed-"+command+"-"+when, 9)
			script = strings.Replace(script, "at-gate", g.wait(), 1)
			f.options.BinaryName = scripted(t, `[ "$command" = `+command+` ] && [ ! -e $0.once ] && { >$0.once; `+script+`; }`)
			f.boot()
			pid := f.shimPID()
			if f.live() {
				t.Errorf("%s: the shim was not killed", f.id)
			}
			eventually(t, func() error { return aliveNot(pid) })
			f.crashed()
			g.let()
			nothingOf(t, f.member)
		}
	}
}

// TestShimKilledInAHook kills a shim while the OCI runtime is in the middle of a
// create: it has made a cgroup, mounts and processes, and goes on when the action
// has looked.
func TestShimKilledInAHook(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, goesOn := range []bool{false, true} {
		g := newGate(t)
		f := l.fragile(fmt.Sprint("killed-in-hook-", goesOn), 9, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: programs.Busybox, Args: []string{"busybox", "sh", "-c", g.wait()}}}}
		})
		f.boot()
		pid := f.shimPID()
		ended := make(chan bool)
		go func() { ended <- f.live() }()
		g.reached()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-ended
		eventually(t, func() error { return aliveNot(pid) })
		if goesOn {
			g.let()
		}
		f.crashed()
		nothingOf(t, f.member)
		g.let()
		nothingOf(t, f.member)
	}
}

// TestShimKilledAtAnyMoment kills shims at random moments of a container's life.
func TestShimKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	usual := 100 * time.Millisecond // what a life takes; learned
	for i := range rounds(t, upgrades(t, 15), 8*time.Second) {
		f := l.fragile(fmt.Sprint("moment-", i), random.IntN(100))
		f.boot()
		pid, began := f.shimPID(), time.Now()
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(usual)*5/4)), func() { unix.Kill(pid, unix.SIGKILL) })
		if f.live() {
			usual = time.Since(began)
		}
		timer.Stop()
		unix.Kill(pid, unix.SIGKILL)
		eventually(t, func() error { return aliveNot(pid) })
		f.crashed()
		nothingOf(t, f.member)
	}
}
