package integration

// The traps between a shim and its containerd.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/cleatrun/cleat/integration/daemon"
)

// The connection is dropped while the runtime creates the container: before it
// has begun, and when it is done but has not said so. The container is created
// all the same, and who asks again gets the answer. Stock fails: the runtime is
// killed.
func TestTrap36ConnectionDroppedInTheMiddleOfCreate(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for name, script := range map[string]string{
		"before": `[ "$command" = create ] && %s`,
		"after":  `[ "$command" = create ] && { runc "$@" || exit; %s; exit 0; }`,
	} {
		for _, again := range []bool{false, true} {
			g := newGate(t)
			m := l.member(fmt.Sprintf("trap36-%s-%t", name, again))
			m.options.BinaryName = scripted(t, fmt.Sprintf(script, g.wait()))
			first := m.shim
			failed := make(chan error, 1)
			go func() { _, err := m.tryCreate(l.ctx); failed <- err }()
			g.reached()
			first.Close()
			if err := <-failed; err == nil {
				t.Error("Create is answered on a connection that is closed")
			}
			address := first.Address
			m.dial(address)
			if again {
				joined := make(chan error, 1)
				go func() { _, err := m.tryCreate(l.ctx); joined <- err }()
				g.let()
				if err := <-joined; err != nil && !errdefs.IsAlreadyExists(err) {
					t.Errorf("%s: Create asked again meanwhile: %v", m.id, err)
				}
			} else {
				g.let()
			}
			eventually(t, func() error {
				response, err := m.shim.State(l.ctx, &task.StateRequest{ID: m.id})
				if err == nil && response.Status != tasktypes.Status_CREATED {
					err = fmt.Errorf("%s is %s", m.id, response.Status)
				}
				return err
			})
			m.start("")
			m.is("", tasktypes.Status_RUNNING)
			m.end()
			if err := inOrder(m.told("/tasks/delete", ""), "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"); err != nil {
				t.Error(err)
			}
		}
	}
}

// The last container of a pod is deleted, and its shim told to end, while a
// container that was let in is created. Stock fails: the Create is not
// answered.
func TestTrap37ShutdownRacesWithACreateInTheSameShim(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	const name = "trap37"
	last := l.member(name, group(name)).run()
	for i := range rounds(t, 50, 4*time.Second) {
		next := l.member(fmt.Sprintf("%s-%d", name, i), group(name))
		if a, b := last.shimPID(), next.shimPID(); a != b {
			t.Fatalf("the group has the shims %d and %d", a, b)
		}
		last.kill("", unix.SIGKILL)
		last.wait("")
		var both errgroup.Group
		both.Go(func() error {
			if _, err := last.tryDelete(l.ctx, ""); err != nil {
				return err
			}
			_, err := last.shim.Shutdown(l.ctx, &task.ShutdownRequest{ID: last.id})
			last.shim.Close()
			return ignoreClosed(err)
		})
		both.Go(func() error {
			// Not to wait for anything: to come at ever another moment.
			time.Sleep(rand.N(30 * time.Millisecond))
			_, err := next.tryCreate(l.ctx)
			return err
		})
		if err := both.Wait(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		last.clean()
		next.start("")
		last = next
	}
	last.end()
}

// The `delete` of a container comes late, when a new shim listens under the
// name of the old one. Stock fails: it leaves a socket behind, in the end.
func TestTrap38DeleteLeavesTheSocketOfANewShimAlone(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	old := l.member("trap38-old", group("trap38")).run()
	old.kill("", unix.SIGKILL)
	old.wait("")
	old.delete("")
	first := old.shimPID()
	old.shutdown()
	eventually(t, func() error { return aliveNot(first) })
	m := l.member("trap38-new", group("trap38"))
	if m.shim.Address != old.shim.Address {
		t.Fatalf("the new shim listens on %s, the old one did on %s", m.shim.Address, old.shim.Address)
	}
	old.clean()
	m.dial(m.shim.Address)
	m.run().end()
}

// The answer to Shutdown arrives: containerd 2.4 takes a failure for one of
// Delete and tries again. Stock fails: some answers are lost.
func TestTrap39ShutdownIsAnsweredBeforeTheShimEnds(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	lost := 0
	n := 0
	for i := range rounds(t, 60, 3*time.Second) {
		m := l.member(fmt.Sprint("trap39-", i))
		n++
		if _, err := m.shim.Shutdown(l.ctx, &task.ShutdownRequest{ID: m.id}); err != nil {
			lost++
			t.Log(err)
		}
		m.shim.Close()
		m.clean()
	}
	if lost > 0 {
		t.Errorf("of %d answers to Shutdown %d were lost", n, lost)
	}
}

// Whatever the runtime is doing, and however long, these answer at once. Stock
// fails: State and Pids wait for the runtime.
func TestTrap40ReadsAnswerWhileTheRuntimeHangs(t *testing.T) {
	l := newLone(t)
	hang := hangTime(t)
	l.ctx = within(t, loneTime+6*hang)
	patient := l.configured(fmt.Sprintf("[limits]\ncontrol = %q\n", soon+hang))
	const limit = 50 * time.Millisecond
	for name, begun := range map[string]func(m *member) func() error{
		"create": nil,
		"start":  func(m *member) func() error { return func() error { _, err := m.tryStart(""); return err } },
		"exec": func(m *member) func() error {
			m.start("")
			m.add(m.execRequest("e", "true"))
			return func() error { _, err := m.tryStart("e"); return err }
		},
		"pause": func(m *member) func() error {
			m.start("")
			return func() error { _, err := m.shim.Pause(l.ctx, &task.PauseRequest{ID: m.id}); return err }
		},
		"update": func(m *member) func() error {
			m.start("")
			return func() error {
				_, err := m.shim.Update(l.ctx, &task.UpdateTaskRequest{ID: m.id, Resources: &anypb.Any{Value: []byte(`{}`)}})
				return err
			}
		},
		"delete": func(m *member) func() error {
			m.start("")
			m.kill("", unix.SIGKILL)
			m.wait("")
			return func() error { _, err := m.tryDelete(l.ctx, ""); return err }
		},
	} {
		g := newGate(t)
		m := l.prepare("trap40-"+name, group("trap40-"+name)).boot(patient)
		m.options.BinaryName = scripted(t, fmt.Sprintf(`[ "$command" = %s ] && %s`, name, g.wait()))
		neighbour := l.member("trap40-neighbour-"+name, group("trap40-"+name)).run()
		call := func() error { _, err := m.tryCreate(l.ctx); return err }
		asked := []*member{neighbour}
		if begun != nil {
			m.create()
			call = begun(m)
			asked = append(asked, m)
		}
		neighbour.exec("ended", "sh", "-c", "exit 3")
		neighbour.wait("ended")
		done := make(chan error, 1)
		go func() { done <- call() }()
		g.reached()
		asks := map[string]func(context.Context) error{
			"Wait for what has ended": func(ctx context.Context) error { _, err := neighbour.tryWait(ctx, "ended"); return err },
		}
		for _, a := range asked {
			asks["State of "+a.id] = func(ctx context.Context) error { _, err := a.shim.State(ctx, &task.StateRequest{ID: a.id}); return err }
			asks["Pids of "+a.id] = func(ctx context.Context) error { _, err := a.shim.Pids(ctx, &task.PidsRequest{ID: a.id}); return err }
			asks["Stats of "+a.id] = func(ctx context.Context) error { _, err := a.shim.Stats(ctx, &task.StatsRequest{ID: a.id}); return err }
			asks["Connect to "+a.id] = func(ctx context.Context) error {
				_, err := a.shim.Connect(ctx, &task.ConnectRequest{ID: a.id})
				return err
			}
		}
		for what, took := range timed(t, hang, asks) {
			if median := took[len(took)/2]; median > limit {
				t.Errorf("while %s hangs, %s takes %s, and up to %s", name, what, median, took[len(took)-1])
			}
		}
		select {
		case err := <-done:
			t.Errorf("%s has not waited for its runtime: %v", name, err)
			continue
		default:
		}
		g.let()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "delete" {
			m.shutdown()
			m.clean()
		} else {
			m.end()
		}
		neighbour.end()
	}
}

// envHang names the environment variable with how long the runtime hangs in
// TestTrap40.
const envHang = "CLEAT_TEST_HANG"

// hangTime is how long a runtime hangs, beyond what it takes to ask a few times.
func hangTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(envHang)
	if text == "" {
		return 0
	}
	hang, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return hang
}

// timed makes each of the calls again and again for so long, nine times at least,
// and returns how long each took, ascending. One of them may take long because
// the machine is busy; half of them do not.
func timed(t *testing.T, hang time.Duration, calls map[string]func(context.Context) error) map[string][]time.Duration {
	t.Helper()
	took := map[string][]time.Duration{}
	began := time.Now()
	next := time.NewTicker(20 * time.Millisecond)
	defer next.Stop()
	for i := 0; i < 9 || time.Since(began) < hang; i++ {
		for what, call := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			asked := time.Now()
			err := call(ctx)
			took[what] = append(took[what], time.Since(asked))
			cancel()
			if err != nil {
				t.Errorf("%s: %v", what, err)
				delete(calls, what)
			}
		}
		if hang > 0 {
			<-next.C
		}
	}
	for _, list := range took {
		slices.Sort(list)
	}
	return took
}

// containerd is started again while a runtime hangs: it gives a shim five
// seconds to answer, and kills the container of one that does not.
func TestTrap40ContainerdFindsAContainerWhoseRuntimeHangs(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	d := ownDaemon(t, config())
	script := scripted(t, `[ "$command" = pause ] && `+g.wait())
	b := newBoxWith(t, d, "trap40", []containerd.NewContainerOpts{
		containerd.WithRuntime(runtimeName, &runcoptions.Options{BinaryName: script}),
	}, oci.WithProcessArgs(forever...))
	b.start(nil)
	pid := b.task.Pid()
	go b.task.Pause(b.ctx) // fails with containerd
	g.reached()
	began := time.Now()
	for again := true; again; again = time.Since(began) < hangTime(t) {
		if err := d.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := d.Run(b.ctx); err != nil {
			t.Fatal(err)
		}
		if err := alive(int(pid)); err != nil {
			t.Fatalf("containerd has ended the container: %v", err)
		}
		client, err := d.Client()
		if err != nil {
			t.Fatal(err)
		}
		found, err := client.LoadContainer(b.ctx, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		if task, err := found.Task(b.ctx, nil); err != nil || task.Pid() != pid {
			t.Fatalf("containerd has the task %v: %v", task, err)
		}
	}
	g.let()
	b.cleanup()
	nothingLeft(t, d)
}

// A task whose shim lists no process is one that containerd removes when it
// starts. Stock fails: there are none.
func TestTrap41PidsOfAnEndedContainerListItsInit(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap41")
	pid := m.create()
	m.start("")
	m.kill("", unix.SIGKILL)
	m.wait("")
	response, err := m.shim.Pids(l.ctx, &task.PidsRequest{ID: m.id})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(response.Processes, func(p *tasktypes.ProcessInfo) bool { return int(p.Pid) == pid }) {
		t.Errorf("Pids are %v, without init, %d", response.Processes, pid)
	}
	m.finish()
}

// The whole of it: a container that ends while containerd is down is still
// there when it is back, and so is its exit status. Stock fails: the task is
// lost.
func TestTrap41ExitStatusOfAContainerThatEndsWhileContainerdIsDown(t *testing.T) {
	t.Parallel()
	d := ownDaemon(t, config())
	b := newBox(t, d, "trap41", []string{"sh", "-c", "read word; exit 7"})
	in, out, errs := newFIFO(t), newTap(t), newTap(t)
	b.start(func(string) (cio.IO, error) {
		return namedIO{Stdin: in.path, Stdout: out.path, Stderr: errs.path}, nil
	})
	pid := int(b.task.Pid())
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in.path, []byte("word\n"), 0); err != nil {
		t.Fatal(err)
	}
	out.all()
	eventually(t, func() error { return aliveNot(pid) })
	if err := d.Run(b.ctx); err != nil {
		t.Fatal(err)
	}
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	found, err := client.LoadContainer(b.ctx, b.ID())
	if err != nil {
		t.Fatal(err)
	}
	task, err := found.Task(b.ctx, nil)
	if err != nil {
		t.Fatalf("the task is lost: %v", err)
	}
	status, err := task.Delete(b.ctx)
	if err != nil || status.ExitCode() != 7 {
		t.Errorf("the container ended with %d: %v, want 7", status.ExitCode(), err)
	}
	b.cleanup()
	nothingLeft(t, d)
}

// envAway names the environment variable with how long containerd is away in
// TestTrap42. Stock gives an event up after five attempts, in some 40 seconds.
const envAway = "CLEAT_TEST_AWAY"

// containerd is away when the container ends, and for some time after that.
// Stock fails: with 60 seconds the exit is not told.
func TestTrap42ExitIsToldHoweverLongContainerdIsAway(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap42").run()
	m.mark()
	if err := l.sink.Stop(); err != nil {
		t.Fatal(err)
	}
	m.kill("", unix.SIGKILL)
	m.wait("")
	away := 2 * time.Second
	if text := os.Getenv(envAway); text != "" {
		var err error
		if away, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	<-time.After(away)
	if err := l.sink.Listen(); err != nil {
		t.Fatal(err)
	}
	m.dial(m.shim.Address) // as a containerd does that has come back
	if _, err := m.shim.Connect(l.ctx, &task.ConnectRequest{ID: m.id}); err != nil {
		t.Fatal(err)
	}
	if err := inOrder(m.told("/tasks/exit", ""), "/tasks/create", "/tasks/start", "/tasks/exit"); err != nil {
		t.Error(err)
	}
	m.finish()
}

// The shim crashes after it has told an exit. containerd then tells it again,
// from what `delete` says: it must be the same.
func TestTrap43ExitThatIsToldTwiceIsTheSame(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b := newBox(t, d, "trap43", []string{"sh", "-c", "exit 7"})
	events, err := d.Subscribe(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.start(nil)
	pid := b.task.Pid()
	told := func(n int, topics ...string) []daemon.Event {
		t.Helper()
		list, err := events.Until(within(t, soon), b.ID(), func(list []daemon.Event) bool {
			found := 0
			for _, e := range list {
				if slices.Contains(topics, e.Topic) {
					found++
				}
			}
			return found >= n
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	told(1, "/tasks/exit")
	shim := b.shim()
	answer, err := shim.Connect(b.ctx, &task.ConnectRequest{ID: b.ID()})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(int(answer.ShimPid), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, e := range told(1, "/tasks/delete") {
		if (e.Topic == "/tasks/exit" || e.Topic == "/tasks/delete") && (e.PID != pid || e.ExitStatus != 7) {
			t.Errorf("told is %s, want pid %d status 7", e, pid)
		}
	}
	b.cleanup()
	nothingLeftOf(t, d, b.ID())
}

// The shim of a pod was started by an older release. `start` has to say which
// version of the API that one serves, not its own. Stock fails: it answers 3.
func TestTrap44VersionIsThatOfTheLeader(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap44", group("trap44"))
	address := m.shim.Address
	pid := m.shimPID()
	m.shutdown()
	eventually(t, func() error { return aliveNot(pid) })
	m.clean()

	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	server.Register("containerd.task.v2.Task", map[string]ttrpc.Method{
		"Connect": func(context.Context, func(any) error) (any, error) { return &task.ConnectResponse{ShimPid: 1}, nil },
	})
	listener, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(context.Background(), listener) // ends with Close
	joined := l.prepare("trap44-new", group("trap44"))
	answer, err := joined.tryBoot()
	if err != nil {
		t.Fatal(err)
	}
	if answer.Version != 2 || strings.TrimPrefix(answer.Address, "unix://") != address {
		t.Errorf("start answered version %d at %s, want 2 at %s", answer.Version, answer.Address, address)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	os.Remove(address)
	joined.clean()
}

// systemd removes a scope as soon as it is empty. The last statistics are still
// answered, for whoever asks after the exit.
func TestTrap46StatsAreAnsweredWhenTheCgroupHasGone(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap46").run()
	if _, err := m.shim.Stats(l.ctx, &task.StatsRequest{ID: m.id}); err != nil {
		t.Fatal(err)
	}
	m.kill("", unix.SIGKILL)
	m.wait("")
	eventually(t, func() error {
		dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", l.Namespace, m.id))
		v1, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*", l.Namespace, m.id))
		var failed error
		for _, dir := range append(dirs, v1...) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				failed = err
			}
		}
		return failed
	})
	response, err := m.shim.Stats(l.ctx, &task.StatsRequest{ID: m.id})
	if err != nil || len(response.GetStats().GetValue()) == 0 {
		t.Errorf("statistics after the end: %v, %v", response, err)
	}
	m.finish()
}

// Somebody on the host has a file of the root filesystem open when the
// container is deleted. Stock fails: so does Delete.
func TestTrap47RootFilesystemThatIsBusyIsUnmounted(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.prepare("trap47", func(s *specs.Spec) { s.Root.Path = "rootfs" })
	m.request.Rootfs = []*types.Mount{{Type: "bind", Source: l.rootfs(), Options: []string{"rbind", "ro"}}}
	m.boot()
	m.run()
	busy, err := os.Open(filepath.Join(m.bundle, "rootfs/bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.delete("")
	if entries, err := os.ReadDir(filepath.Join(m.bundle, "rootfs")); err != nil || len(entries) > 0 {
		t.Errorf("the root filesystem still holds %v: %v", entries, err)
	}
	m.shutdown()
	m.clean()
}

// Hooks leave processes behind, which become the shim's when they end.
func TestTrap48OrphansOfHooksAreReaped(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	hook := func(text string) specs.Hook {
		return specs.Hook{Path: programs.Busybox, Args: []string{"busybox", "sh", "-c", text}}
	}
	m := l.member("trap48", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{
			CreateRuntime: []specs.Hook{hook(programs.Busybox + " sleep 0.05 </dev/null >/dev/null 2>&1 &")},
			Poststart:     []specs.Hook{hook("for i in 1 2 3 4 5 6 7 8; do " + programs.Busybox + " sleep 0.02 </dev/null >/dev/null 2>&1 & done")},
		}
	}).run()
	for i := range 5 {
		m.exec(fmt.Sprint("e", i), "true")
		m.wait(fmt.Sprint("e", i))
	}
	shim := m.shimPID()
	eventually(t, func() error { return noZombies(shim) })
	eventually(t, func() error { return noChildren(shim, int(m.state("").Pid)) })
	m.end()
}

// Signals that are none, and `all` where it says nothing.
func TestTrap49KillWithOddSignals(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap49").run()
	exec := m.exec("e", "sleep", "1000")
	for _, execID := range []string{"", "e"} {
		if err := m.tryKill(execID, 0, false); err != nil {
			t.Errorf("signal 0 to %q: %v", execID, err)
		}
		for _, signal := range []unix.Signal{65, 1000, -1} {
			_, err := m.shim.Kill(l.ctx, &task.KillRequest{ID: m.id, ExecID: execID, Signal: uint32(signal)})
			if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
				t.Errorf("signal %d to %q gives %v", signal, execID, err)
			}
		}
	}
	m.is("", tasktypes.Status_RUNNING)
	m.is("e", tasktypes.Status_RUNNING)
	if err := m.tryKill("e", unix.SIGKILL, true); err != nil {
		t.Errorf("SIGKILL to all of an exec: %v", err)
	}
	if status := m.wait("e"); status != 137 {
		t.Errorf("the exec ended with %d, want 137", status)
	}
	if err := aliveNot(exec); err != nil {
		t.Error(err)
	}
	m.is("", tasktypes.Status_RUNNING)
	if err := m.tryKill("e", 0, false); !errdefs.IsNotFound(err) {
		t.Errorf("signal 0 to an exec that has ended gives %v, want not found", err)
	}
	m.delete("e")
	m.end()
}

// Clients name the types of specs and resources in different ways.
func TestTrap50TypeURLsOfSpecsAreNotLookedAt(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap50").run()
	for i, url := range []string{
		"types.containerd.io/opencontainers/runtime-spec/1/Process",
		"opencontainers/runtime-spec/1/Process",
		"type.googleapis.com/whatever",
		"",
	} {
		id := fmt.Sprint("e", i)
		r := m.execRequest(id, "sh", "-c", "exit 4")
		r.Spec.TypeUrl = url
		m.add(r)
		m.start(id)
		if status := m.wait(id); status != 4 {
			t.Errorf("an exec of type %q ended with %d, want 4", url, status)
		}
		m.delete(id)
	}
	for i, url := range []string{
		"types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
		"types.containerd.io/opencontainers/runtime-spec/1.0/LinuxResources",
		"whatever",
	} {
		limit := (64 + i) << 20
		resources := &anypb.Any{TypeUrl: url, Value: fmt.Appendf(nil, `{"memory":{"limit":%d}}`, limit)}
		if _, err := m.shim.Update(l.ctx, &task.UpdateTaskRequest{ID: m.id, Resources: resources}); err != nil {
			t.Errorf("an update of type %q: %v", url, err)
		} else if got := memoryLimit(t, int(m.state("").Pid)); got != fmt.Sprint(limit) {
			t.Errorf("after an update of type %q the limit is %s, want %d", url, got, limit)
		}
	}
	m.end()
}
