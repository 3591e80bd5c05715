package integration

// The traps of starting a shim. docs/protocol-traps.md has the list of all and
// says what stock does.

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/cio"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// containerd reads stdout and stderr of `start` as one answer, until nobody
// holds them any more.
func TestTrap1StartWritesItsAnswerAndLeavesNobodyWithItsOutput(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for name, debug := range map[string]bool{"trap1": false, "trap1-debug": true} {
		m := l.prepare(name)
		cmd := m.startAction()
		if debug {
			cmd.Args = append(append([]string{cmd.Args[0]}, "-debug"), cmd.Args[1:]...)
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil { // exec.ErrWaitDelay if a daemon holds the pipes
			t.Fatalf("start: %v: %s%s", err, stdout.Bytes(), stderr.Bytes())
		}
		if stderr.Len() > 0 {
			t.Errorf("start wrote %q to stderr", stderr.Bytes())
		}
		var answer bootapi.BootstrapResult
		if err := proto.Unmarshal(stdout.Bytes(), &answer); err != nil || answer.Protocol != "ttrpc" {
			t.Fatalf("start answered %q: %v", stdout.Bytes(), err)
		}
		m.dial(answer.Address)
		m.shutdown()
		m.clean()
	}
}

// Core scheduling groups belong to threads: one that is made on the wrong
// thread leaves the daemon, or some of its threads, outside.
func TestTrap2CoreSchedulingGroupHoldsAllThreads(t *testing.T) {
	t.Parallel()
	if _, err := coreCookie(0); err != nil {
		t.Skipf("the kernel schedules no cores here: %v", err)
	}
	l := newLone(t)
	m := l.prepare("trap2").boot("SCHED_CORE=1")
	pid := m.create()
	want := mustCookie(t, pid)
	if want == 0 {
		t.Error("the container is in no core scheduling group")
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", m.shimPID()))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads of the shim: %v", err)
	}
	for _, thread := range threads {
		var tid int
		fmt.Sscan(filepath.Base(thread), &tid)
		if got := mustCookie(t, tid); got != want {
			t.Errorf("thread %d of the shim is in group %x, the container in %x", tid, got, want)
		}
	}
	m.end()
}

// coreCookie is the core scheduling group of a thread (prctl(2)).
func coreCookie(tid int) (cookie uint64, err error) {
	const thread = 0
	err = unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_GET, uintptr(tid), thread, uintptr(unsafe.Pointer(&cookie)))
	return cookie, err
}

func mustCookie(t *testing.T, tid int) uint64 {
	t.Helper()
	cookie, err := coreCookie(tid)
	if err != nil {
		t.Fatalf("core scheduling group of %d: %v", tid, err)
	}
	return cookie
}

// Two containers of a pod that are started at the same time share one shim.
// Stock fails: some of the starts fail.
func TestTrap3ConcurrentStartsOfAGroupShareOneShim(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for i := range rounds(t, 40, 3*time.Second) {
		var members []*member
		var answers [3]*bootapi.BootstrapResult
		var starts errgroup.Group
		for n := range answers {
			m := l.prepare(fmt.Sprintf("trap3-%d-%d", i, n), group(fmt.Sprint("trap3-", i)))
			members = append(members, m)
			starts.Go(func() (err error) {
				answers[n], err = m.tryBoot()
				return err
			})
		}
		if err := starts.Wait(); err != nil {
			t.Fatal(err)
		}
		pids := map[int]bool{}
		for n, m := range members {
			m.dial(answers[n].Address)
			pids[m.shimPID()] = true
		}
		if len(pids) != 1 {
			t.Errorf("%d shims serve one group", len(pids))
		}
		for _, m := range members {
			m.shutdown()
		}
		for _, m := range members {
			m.clean()
		}
	}
}

// A container joins a pod while the shim of the pod is about to end, since its
// last container was deleted: the start that was answered must be good for a
// container. Stock fails: the shim ends before the Create.
func TestTrap3StartMeetsALeaderThatIsEnding(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	const name = "trap3-ending"
	last := l.member(name, group(name)).run()
	for i := range rounds(t, 50, 4*time.Second) {
		next := l.prepare(fmt.Sprintf("%s-%d", name, i), group(name))
		last.kill("", unix.SIGKILL)
		last.wait("")
		last.delete("")
		var both errgroup.Group
		both.Go(func() error {
			// Not to wait for anything: to come at ever another moment.
			time.Sleep(rand.N(8 * time.Millisecond))
			_, err := last.shim.Shutdown(l.ctx, &task.ShutdownRequest{ID: last.id})
			last.shim.Close()
			return ignoreClosed(err)
		})
		both.Go(func() error {
			answer, err := next.tryBoot()
			if err != nil {
				return err
			}
			if err := next.tryDial(answer.Address); err != nil {
				return err
			}
			_, err = next.tryCreate(l.ctx)
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

// containerd dies when it has started a shim and not yet asked it to create the
// container. The shim that nobody knows must not stay. Stock fails: it stays.
func TestTrap4ShimWhoseContainerdDiesBeforeCreateDoesNotStay(t *testing.T) {
	t.Parallel()
	g := newGate(t)
	config := config()
	config.Path = []string{wrappedShim(t, g)}
	d := ownDaemon(t, config)
	b := newBox(t, d, "trap4", forever)
	failed := make(chan error, 1)
	go func() {
		_, err := b.NewTask(b.ctx, cio.NullIO)
		failed <- err
	}()
	g.reached()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("a task is created by a containerd that was killed")
	}
	g.let()
	if err := d.Run(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.cleanup()
	nothingLeft(t, d)
}

// wrappedShim makes a folder with a script in the place of the shim under test:
// `start` ends only when the gate is open.
func wrappedShim(t *testing.T, g *gate) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := fmt.Sprintf("#!%s sh\ncase \" $* \" in *' start '*) out=$(%s \"$@\" | %s base64) && %s && echo \"$out\" | %s base64 -d; exit;; esac\nexec %s \"$@\"\n",
		programs.Busybox, shimProgram(), programs.Busybox, g.wait(), programs.Busybox, shimProgram())
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(shimProgram())), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The socket of a shim that was killed is in the way of the next one of that
// name.
func TestTrap5SocketOfAKilledShimIsReplaced(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap5")
	first := m.shimPID()
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	socket := strings.TrimPrefix(m.shim.Address, "unix://")
	eventually(t, func() error { return aliveNot(first) })
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("the killed shim has removed its socket: %v", err)
	}
	m.boot()
	if m.shim.Address != socket {
		t.Errorf("the second shim listens on %s, the first one did on %s", m.shim.Address, socket)
	}
	if second := m.shimPID(); second == first {
		t.Errorf("the shim still is process %d", first)
	}
	m.run().end()
}
