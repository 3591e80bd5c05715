package process

// Containers with cgroups of their own, on this machine's v1 hierarchies; on
// cgroup v2 the integration tests do the same.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/process/stdio"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// newCgroup makes a cgroup in each hierarchy and has the runtime put the
// container there. The name is the path in all of them.
func (b *box) newCgroup() (dirs map[string]string) {
	b.t.Helper()
	dirs = map[string]string{}
	join := ""
	for _, controller := range []string{"memory", "pids", "freezer", "cpuacct", "cpu", "devices", "systemd", "blkio"} {
		top := filepath.Join("/sys/fs/cgroup", controller)
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(top, fmt.Sprintf("process-test-%d-%s", os.Getpid(), b.ID))
		if err := os.Mkdir(dir, 0o755); err != nil {
			b.t.Skipf("cannot make a cgroup: %v", err)
		}
		dirs[controller] = dir
		join += fmt.Sprintf("echo $$ >%s/cgroup.procs\n", dir)
		b.t.Cleanup(func() { removeCgroup(b.t, dir) })
	}
	if dirs["memory"] == "" || dirs["pids"] == "" || dirs["freezer"] == "" {
		b.t.Skip("this machine has no cgroup v1")
	}
	b.runtime.On(b.bundle, "create", join)
	b.runtime.On(b.bundle, "exec", join)
	return dirs
}

func removeCgroup(t testing.TB, dir string) {
	eventually(t, "cgroup "+dir+" can be removed", func() bool {
		os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		for _, pid := range inCgroup(dir) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		err := unix.Rmdir(dir)
		return err == nil || errors.Is(err, unix.ENOENT)
	})
}

func inCgroup(dir string) (pids []int) {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for word := range strings.FieldsSeq(string(text)) {
		pid, _ := strconv.Atoi(word)
		pids = append(pids, pid)
	}
	return pids
}

// populous is an init process with two children that do not end by themselves.
const populous = `sleep 1000 & sleep 1000 & : >"$0.ready"; wait`

func (b *box) isReady() {
	b.t.Helper()
	eventually(b.t, "the container is ready", func() bool { _, err := os.Stat(b.bundle.Path("init.sh.ready")); return err == nil })
}

// With all, a signal is for every process of the container; without, for the
// one that is named.
func TestKillReachesWhomItIsFor(t *testing.T) {
	b := newBox(t, boxOptions{init: populous})
	dirs := b.newCgroup()
	b.run()
	b.isReady()
	if pids, err := b.PIDs(); err != nil || len(pids) != 3 {
		t.Errorf("pids %v, %v", pids, err)
	}
	must(t, "signal 0 to init", b.Init().Kill(0, false))
	must(t, "signal 0 to all", b.Init().Kill(0, true))
	if err := b.Init().Kill(200, false); !errdefs.IsInvalidArgument(err) {
		t.Errorf("signal 200: %v", err)
	}
	must(t, "stop all", b.Init().Kill(syscall.SIGSTOP, true))
	for _, pid := range inCgroup(dirs["pids"]) {
		eventually(t, "all are stopped", func() bool { return stateOf(pid) == 'T' })
	}
	must(t, "go on", b.Init().Kill(syscall.SIGCONT, true))
	must(t, "kill all", b.Init().Kill(syscall.SIGTERM, true))
	b.ends(128 + 15)
	eventually(t, "nobody is left", func() bool { return len(inCgroup(dirs["pids"])) == 0 })
	for _, all := range []bool{false, true} {
		if err := b.Init().Kill(syscall.SIGTERM, all); !errdefs.IsNotFound(err) {
			t.Errorf("signal to what has ended, all=%t: %v", all, err)
		}
	}
	b.delete()
	for controller, dir := range dirs {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("the %s cgroup is left", controller)
		}
	}
}

// stateOf a process as proc_pid_stat(5) has it, 0 when there is none.
func stateOf(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return stat[strings.LastIndexByte(string(stat), ')')+2]
}

// Without a PID namespace of the container's own, the end of init does not end
// the rest: the shim does, before it tells the exit.
func TestEndOfInitEndsWhatItLeaves(t *testing.T) {
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("own PID namespace=%t", own), func(t *testing.T) {
			b := newBox(t, boxOptions{init: `sleep 1000 & exit 3`})
			dirs := b.newCgroup()
			if !own {
				must(t, "write spec", os.WriteFile(b.bundle.Path("config.json"), []byte(`{}`), 0o600))
			}
			b.run()
			b.ends(3)
			left := len(inCgroup(dirs["pids"]))
			if own && left != 1 { // there is none here, so nobody has ended it
				t.Errorf("%d processes are left", left)
			}
			if !own {
				eventually(t, "nobody is left", func() bool { return len(inCgroup(dirs["pids"])) == 0 })
			}
			b.expect("create", "start", "exit")
			removeCgroup(t, dirs["pids"])
			b.delete()
		})
	}
}

// A frozen process dies of a SIGKILL only once it is thawed (cgroup v1); stock
// resumes it, too.
func TestKillOfAPausedContainerTakesEffect(t *testing.T) {
	for _, all := range []bool{false, true} {
		for _, own := range []bool{true, false} {
			t.Run(fmt.Sprintf("all=%t own PID namespace=%t", all, own), func(t *testing.T) {
				b := newBox(t, boxOptions{init: populous})
				dirs := b.newCgroup()
				if !own {
					must(t, "write spec", os.WriteFile(b.bundle.Path("config.json"), []byte(`{}`), 0o600))
				}
				b.runtime.On(b.bundle, "pause", fmt.Sprintf("echo FROZEN >%s/freezer.state; exit 0", dirs["freezer"]))
				b.run()
				b.isReady()
				must(t, "pause", b.Pause(bounded(t)))
				must(t, "SIGTERM", b.Init().Kill(syscall.SIGTERM, all))
				must(t, "SIGKILL", b.Init().Kill(syscall.SIGKILL, all))
				exit, err := b.Init().Wait(bounded(t))
				if err != nil || exit.Status != 128+9 && exit.Status != 128+15 {
					t.Errorf("ended with %+v, %v", exit, err)
				}
				for _, dir := range dirs {
					removeCgroup(t, dir)
				}
				b.delete()
				b.expect("create", "start", "paused", "exit", "delete")
			})
		}
	}
}

// limit makes the container's memory small.
func limit(t *testing.T, dirs map[string]string, bytes int) {
	t.Helper()
	must(t, "limit the memory", os.WriteFile(filepath.Join(dirs["memory"], "memory.limit_in_bytes"), []byte(strconv.Itoa(bytes)), 0))
}

// eats takes memory until it is killed. The shell doubles a word.
const eats = `w=0123456789abcdef; while :; do w=$w$w; done`

// An OOM kill is told before the exit that it explains: stock has it after Wait
// has been released, when nobody looks any more.
func TestOOMIsToldBeforeTheExitThatItExplains(t *testing.T) {
	for range 3 {
		b := newBox(t, boxOptions{init: eats})
		limit(t, b.newCgroup(), 8<<20)
		b.run()
		b.ends(128 + 9)
		if got := b.told.list(); !slices.Equal(got, []string{"create", "start", "oom", "exit"}) {
			t.Errorf("events %q", got)
		}
		if exit, err := b.bundle.ReadExit(); err != nil || !exit.OOM {
			t.Errorf("recorded %+v, %v", exit, err)
		}
		if !b.Container.State().OOM {
			t.Error("the state does not tell of it")
		}
		b.delete()
	}
}

func TestOOMOfAnExecIsToldBeforeItsExit(t *testing.T) {
	b := newBox(t, boxOptions{})
	limit(t, b.newCgroup(), 8<<20)
	b.run()
	p := b.exec("eats", eats)
	must(t, "start exec", p.StartExec(bounded(t)))
	ends(t, p, 128+9)
	if got := b.told.list(); !slices.Equal(got, []string{"create", "start", "exec-added/eats", "exec-started/eats", "oom", "exit/eats"}) {
		t.Errorf("events %q", got)
	}
}

// A container that survives the kill of one of its processes is told of too, and
// once for one kill.
func TestOOMThatTheContainerSurvivesIsTold(t *testing.T) {
	b := newBox(t, boxOptions{init: "(" + eats + "); exec sleep 1000"})
	limit(t, b.newCgroup(), 8<<20)
	b.run()
	eventually(t, "the OOM kill is told", func() bool { return slices.Contains(b.told.list(), "oom") })
	must(t, "kill", b.Init().Kill(syscall.SIGKILL, false))
	b.ends(128 + 9)
	b.expect("create", "start", "oom", "exit")
}

// Of a container whose creation fails nothing is told, also if the OOM killer is
// why, and of one that is created the create comes first.
func TestOOMWhileTheContainerIsCreated(t *testing.T) {
	for _, fails := range []bool{true, false} {
		t.Run(fmt.Sprintf("fails=%t", fails), func(t *testing.T) {
			limits := DefaultLimits
			limits.Console, limits.Drain = patience, 50*time.Millisecond
			b := newBox(t, boxOptions{init: eats, limits: limits, spec: stdio.Spec{Terminal: true}})
			limit(t, b.newCgroup(), 8<<20)
			// The runtime has told the pid, the shim waits for the terminal, and
			// init runs before it is started and out of memory.
			join, err := os.ReadFile(b.bundle.Path("on-create"))
			must(t, "read hook", err)
			b.runtime.On(b.bundle, "create", string(join)+"console=; exec >/dev/null 2>&1")
			must(t, "start init", os.WriteFile(b.bundle.Path("start"), []byte("go\n"), 0))
			created := b.inBackground(b.Init(), OpCreate, b.Create)
			eventually(t, "init has run out of memory", func() bool { return b.checkOOM() })
			sendTerminal(t, b, !fails)
			err = receive(t, "the answer", created)
			if fails {
				if err == nil {
					t.Error("a container without its terminal was created")
				}
				b.expect()
				return
			}
			must(t, "create", err)
			b.ends(128 + 9)
			b.expect("create", "oom", "exit")
			b.delete()
		})
	}
}

// sendTerminal sends a terminal's master to the container's console socket, or
// hangs up without one.
func sendTerminal(t *testing.T, b *box, send bool) {
	t.Helper()
	sockets, err := filepath.Glob(b.bundle.Path("tty-*.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("console sockets %q, %v", sockets, err)
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sockets[0], Net: "unix"})
	must(t, "connect", err)
	defer conn.Close()
	if !send {
		return
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, "make pty", err)
	defer master.Close()
	_, _, err = conn.WriteMsgUnix([]byte("/dev/ptmx"), unix.UnixRights(int(master.Fd())), nil)
	must(t, "send the terminal", err)
}
