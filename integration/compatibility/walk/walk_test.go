package walk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/poll"
	"github.com/cleatrun/cleat/integration/tools"
)

// user is somebody who uses a containerd in one of the ways that there are.
// Each call ends the step if it fails.
type user interface {
	// to makes the calls that follow those of a step.
	to(t *testing.T)
	pull(ref string)
	// run runs a container in the foreground until it ends, and removes it.
	run(id, input string, args ...string) (output, errors string, status int)
	// watch begins to take events, told are the topics of a container's.
	watch()
	told(id string) []string
	// start starts a container, talk an exec, that somebody talks to.
	start(id string, labels map[string]string, args ...string) *talk
	talk(id, exec string, args ...string) *talk
	exec(id, exec string, args ...string) (output string, status int)
	// terminal runs a shell on a terminal and types text.
	terminal(id, exec string, rows, columns int, text string) (shown string, status int)
	pids(id string) []int
	// memory is what the statistics say, in bytes.
	memory(id string) uint64
	pause(id string)
	resume(id string)
	status(id string) (pid int, status string)
	kill(id string, signal syscall.Signal)
	// delete deletes the task and its container.
	delete(id string) (status int)
}

// users makes those of Users.
var users = map[string]func(*daemon.Daemon, string) user{"ctr": newCtr, "client": newClient}

// walk is one user at one containerd.
type walk struct {
	user
	d    *daemon.Daemon
	t    *testing.T // of the step
	lost bool       // a step has failed

	pid               int // of the container that stays
	life, exec2, ends *talk
}

// newWalk starts a containerd for a walk.
func newWalk(t *testing.T, release tools.Containerd, oci string, path []string, by func(*daemon.Daemon, string) user, runtime string) *walk {
	t.Helper()
	folders := append(slices.Clone(path), runtimeFolder(t, oci))
	ctx, cancel := context.WithTimeout(t.Context(), stepTime)
	defer cancel()
	d, err := daemon.Start(ctx, daemon.Config{Tools: programs.With(release), Runtime: runtime, Path: folders, Image: imageFile})
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{user: by(d, runtime), d: d, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("containerd and the shims wrote:\n%s", ownWords(d.Log()))
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// runtimeFolder is a folder in which an OCI runtime is called as the shim calls
// it, unless it is the runc of the programs.
func runtimeFolder(t *testing.T, oci string) string {
	t.Helper()
	dir := t.TempDir()
	if oci == "runc" {
		return dir
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", filepath.Join(programs.Dir, "runtimes", oci))
	if err := os.WriteFile(filepath.Join(dir, "runc"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// step is a part of the walk. What fails ends the walk, since nothing can be
// said of what comes then.
func (w *walk) step(t *testing.T, name string, do func()) {
	t.Helper()
	if w.lost {
		return
	}
	w.lost = !t.Run(name, func(t *testing.T) {
		w.t = t
		w.to(t)
		do()
	})
}

// eventually waits until something holds.
func (w *walk) eventually(holds func() error) {
	w.t.Helper()
	eventually(w.t, holds)
}

func eventually(t *testing.T, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	if err := poll.Until(ctx, holds); err != nil {
		t.Fatal(err)
	}
}

// ourRuntime is the name by which containerd finds the shim under test.
const ourRuntime = "io.containerd.cleat.v2"

// TestWalk is the walk on each containerd with each OCI runtime and both users.
func TestWalk(t *testing.T) {
	for _, release := range releases() {
		for _, oci := range runtimes() {
			for _, by := range Users {
				t.Run(release.Name+"/"+oci+"/"+by, func(t *testing.T) {
					t.Parallel()
					newWalk(t, release, oci, nil, users[by], ourRuntime).all(t)
				})
			}
		}
	}
}

// all are the steps of Steps.
func (w *walk) all(t *testing.T) {
	w.step(t, "pull", func() { w.pull(pullable(w.t)) })
	w.step(t, "run", func() {
		w.watch()
		w.runs()
	})
	w.step(t, "events", w.events)
	w.step(t, "start", w.starts)
	w.step(t, "exec", w.execs)
	w.step(t, "terminal", w.terminals)
	w.step(t, "ps", w.lists)
	w.step(t, "metrics", w.measures)
	w.step(t, "pause", w.pauses)
	w.step(t, "away", func() { w.away(w.d.Kill) })
	w.step(t, "found", w.found)
	w.step(t, "exit", w.exit)
	w.step(t, "streams", w.streams)
	w.step(t, "again", w.again)
	w.step(t, "stop", w.stop)
	w.step(t, "clean", w.clean)
}

// pullable puts the test image into a registry on loopback and returns the name
// to pull it by.
func pullable(t *testing.T) string {
	t.Helper()
	registry, err := image.ServeRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { registry.Close() })
	ref, err := registry.Add(testImage, "walk/image:latest")
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (w *walk) runs() {
	output, errors, status := w.run("brief", "heard\n", "sh", "-c", "cat; echo complaint >&2; exit 3")
	if output != "heard\n" || !strings.Contains(errors, "complaint\n") || status != 3 {
		w.t.Fatalf("the container wrote %q and %q and ended with %d, want %q, %q and 3", output, errors, status, "heard\n", "complaint\n")
	}
}

func (w *walk) events() {
	want := []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"}
	w.eventually(func() error {
		if got := w.told("brief"); !slices.Equal(got, want) {
			return fmt.Errorf("the events are %q, want %q", got, want)
		}
		return nil
	})
}

// talks is what is run that goes on: it says what it hears, and ends with 9 when
// it is asked to.
const talks = `trap 'exit 9' TERM; echo "$0 is there"; while read line; do echo "$0 $line"; done; exit 3`

func (w *walk) starts() {
	w.life = w.start("life", nil, "sh", "-c", talks, "init")
	w.life.hear(w.t, "init is there")
	w.life.say(w.t, "hello")
	w.life.hear(w.t, "init hello")
	w.pid = w.runsAs("life")
}

// runsAs is the process of a container, which must run.
func (w *walk) runsAs(id string) int {
	w.t.Helper()
	pid, status := w.status(id)
	if status != "running" {
		w.t.Fatalf("%s is %s, want it running", id, status)
	}
	if err := unix.Kill(pid, 0); err != nil {
		w.t.Fatalf("%s has process %d: %v", id, pid, err)
	}
	return pid
}

func (w *walk) execs() {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			name := "exec-" + strconv.Itoa(i)
			output, status := w.user.exec("life", name, "sh", "-c", fmt.Sprintf("echo this is %s; exit %d", name, 20+i))
			if status != 20+i || output != "this is "+name+"\n" {
				w.t.Errorf("%s ended with %d, want %d, and wrote %q", name, status, 20+i, output)
			}
		})
	}
	all.Wait()
}

func (w *walk) terminals() {
	shown, status := w.terminal("life", "terminal", 30, 101,
		"until [ \"`stty size`\" = '30 101' ]; do sleep 0.01; done; echo is $(stty size); exit 11\n")
	if status != 11 || !strings.Contains(shown, "is 30 101") {
		w.t.Errorf("a shell on a terminal of 30 by 101 ended with %d, want 11, and showed:\n%s", status, shown)
	}
}

func (w *walk) lists() {
	w.exec2 = w.user.talk("life", "talker", "sh", "-c", talks, "exec")
	w.exec2.hear(w.t, "exec is there")
	if pids := w.pids("life"); len(pids) != 2 || !slices.Contains(pids, w.pid) {
		w.t.Errorf("the container has the processes %v, want its first, %d, and that of an exec", pids, w.pid)
	}
}

func (w *walk) measures() {
	if used := w.memory("life"); used < 4096 || used > 100<<20 {
		w.t.Errorf("two shells use %d bytes of memory", used)
	}
}

func (w *walk) pauses() {
	w.pause("life")
	if _, status := w.status("life"); status != "paused" {
		w.t.Errorf("the container is %s, want it paused", status)
	}
	w.resume("life")
	w.runsAs("life")
}

// away is what goes on when containerd is not there.
func (w *walk) away(end func() error) {
	w.ends = w.start("ends", nil, "sh", "-c", "echo ready; read code; exit $code")
	w.ends.hear(w.t, "ready")
	pid := w.runsAs("ends")
	if err := end(); err != nil {
		w.t.Fatal(err)
	}
	w.life.say(w.t, "while it is away")
	w.life.hear(w.t, "init while it is away")
	w.exec2.say(w.t, "while it is away")
	w.exec2.hear(w.t, "exec while it is away")
	w.ends.say(w.t, "7")
	w.eventually(func() error {
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			return fmt.Errorf("process %d has not ended: %v", pid, err)
		}
		return nil
	})
}

func (w *walk) found() {
	ctx, cancel := context.WithTimeout(w.t.Context(), stepTime)
	defer cancel()
	if err := w.d.Run(ctx); err != nil {
		w.t.Fatal(err)
	}
	if pid := w.runsAs("life"); pid != w.pid {
		w.t.Errorf("the container was process %d and is %d after the restart", w.pid, pid)
	}
}

func (w *walk) exit() {
	if _, status := w.status("ends"); status != "stopped" {
		w.t.Errorf("the container that ended meanwhile is %s", status)
	}
	if status := w.delete("ends"); status != 7 {
		w.t.Errorf("the container that ended meanwhile with 7 is said to have ended with %d", status)
	}
}

func (w *walk) streams() {
	for name, talk := range map[string]*talk{"init": w.life, "exec": w.exec2} {
		talk.say(w.t, "when it is back")
		talk.hear(w.t, name+" when it is back")
	}
}

func (w *walk) again() {
	if output, status := w.user.exec("life", "again", "sh", "-c", "echo a new exec; exit 5"); output != "a new exec\n" || status != 5 {
		w.t.Errorf("a new exec wrote %q and ended with %d, want 5", output, status)
	}
}

func (w *walk) stop() { w.stops("life", 9) }

// stops ends a container by a signal that it catches.
func (w *walk) stops(id string, want int) {
	w.t.Helper()
	w.kill(id, unix.SIGTERM)
	w.eventually(func() error {
		if _, status := w.status(id); status != "stopped" {
			return fmt.Errorf("after SIGTERM %s is %s", id, status)
		}
		return nil
	})
	if status := w.delete(id); status != want {
		w.t.Errorf("%s ended with %d, want %d", id, status, want)
	}
}

// clean is when all containers have been deleted.
func (w *walk) clean() {
	ctx, cancel := context.WithTimeout(w.t.Context(), stepTime)
	defer cancel()
	for _, talk := range []*talk{w.life, w.exec2, w.ends} {
		talk.close()
	}
	if left := w.d.Settled(ctx, settleTime); len(left) > 0 {
		w.t.Errorf("left over:\n  %s", strings.Join(left, "\n  "))
	}
}

// ownWords is the end of a containerd's log without what each writes that starts.
func ownWords(log string) string {
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(log), "\n"), func(line string) bool {
		return strings.Contains(line, "load plugin") || strings.Contains(line, "loading plugin")
	})
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}
