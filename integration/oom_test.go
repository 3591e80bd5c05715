package integration

// Processes that the kernel kills for want of memory.

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// eater takes more memory than a container of tests has, as fast as it can.
var eater = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"}

// memory limits a container to what a shell needs, and no swap.
func memory(s *specs.Spec) {
	limit := int64(20 << 20)
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
}

// ooms counts the OOM events.
func ooms(list []daemon.Event) (n int) {
	for _, e := range list {
		if e.Topic == "/tasks/oom" {
			n++
		}
	}
	return n
}

// A container that is killed as soon as it runs: the reason is told, once, and
// before its exit, although the shim and the cgroup are gone at once. Stock
// fails: told late, or not.
func TestOOMOfAContainerThatDiesAtOnceIsToldBeforeItsExit(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for i := range rounds(t, 12, 3*time.Second) {
		m := l.member(fmt.Sprint("oom-", i), args(eater...), memory)
		m.run()
		if status := m.wait(""); status != 137 {
			t.Errorf("%s ended with %d, want 137", m.id, status)
		}
		m.finish()
		events := m.told("/tasks/delete", "")
		if err := inOrder(events, "/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit", "/tasks/delete"); err != nil {
			t.Error(err)
		}
	}
}

// An exec is killed and the container goes on. Stock fails: it is told
// afterwards.
func TestOOMOfAnExecIsToldBeforeItsExit(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("oom-exec", memory).run()
	m.exec("eater", eater...)
	if status := m.wait("eater"); status != 137 {
		t.Errorf("the exec ended with %d, want 137", status)
	}
	if err := inOrder(m.told("/tasks/exit", "eater"), "/tasks/exec-started eater", "/tasks/oom", "/tasks/exit eater"); err != nil {
		t.Error(err)
	}
	m.delete("eater")
	m.end()
	if n := ooms(m.told("/tasks/delete", "")); n != 1 {
		t.Errorf("one kill is told %d times", n)
	}
}

// What is known of kills, and the watch for them, is handed over: what was told
// before an upgrade is not told again, and what comes after it is.
func TestOOMIsToldAcrossUpgrades(t *testing.T) {
	onlyOurs(t)
	t.Parallel()
	l := newLone(t)
	for i := range 3 {
		m := l.member(fmt.Sprint("oom-upgraded-", i), memory).run()
		upgradeTo(t, m.shim, programs.Shim)
		m.exec("eater", eater...)
		if status := m.wait("eater"); status != 137 {
			t.Errorf("the exec ended with %d, want 137", status)
		}
		for range 3 {
			upgradeTo(t, m.shim, programs.Shim)
		}
		if err := inOrder(m.told("/tasks/exit", "eater"), "/tasks/exec-started eater", "/tasks/oom", "/tasks/exit eater"); err != nil {
			t.Error(err)
		}
		m.delete("eater")
		m.end()
		if n := ooms(m.told("/tasks/delete", "")); n != 1 {
			t.Errorf("one kill is told %d times:\n%s", n, eventLines(l.sink.Of(m.id)))
		}
	}
}

// init survives that one of its children is killed: only the kernel's own word
// tells of it.
func TestOOMThatInitSurvivesIsTold(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	script := fmt.Sprintf("trap 'exit 9' TERM; %s; sleep 1000 & wait", shell(eater))
	m := l.member("oom-child", args("sh", "-c", script), memory).run()
	events := m.told("/tasks/oom", "")
	if indexOf(events, "/tasks/exit", "") >= 0 {
		t.Errorf("init has ended:\n%s", eventLines(events))
	}
	m.ask()
	if status := m.wait(""); status != 9 {
		t.Errorf("init ended with %d, want 9", status)
	}
	m.finish()
	if n := ooms(m.told("/tasks/delete", "")); n != 1 {
		t.Errorf("one kill is told %d times:\n%s", n, eventLines(l.sink.Of(m.id)))
	}
}

// shell is a command as a shell reads it; no argument needs quoting.
func shell(args []string) (text string) {
	for _, arg := range args {
		text += arg + " "
	}
	return text
}

// Kills that follow each other at once are told as one. Stock fails: each is
// told.
func TestOOMIsToldOncePerBurst(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("oom-burst", memory).run()
	const kills = 6
	began := time.Now()
	m.exec("burst", "sh", "-c", fmt.Sprintf("for i in $(seq %d); do %s; done; exit 5", kills, shell(eater)))
	if status := m.wait("burst"); status != 5 {
		t.Errorf("the exec ended with %d, want 5", status)
	}
	took := time.Since(began)
	m.told("/tasks/exit", "burst")
	m.delete("burst")
	m.end()
	events := m.told("/tasks/delete", "")
	n := ooms(events)
	// Two kills are one burst when they are 200 ms apart at most.
	if n < 1 || n > 1+int(took/(200*time.Millisecond)) {
		t.Errorf("%d kills in %s are told %d times:\n%s", kills, took, n, eventLines(events))
	}
	if last := max(0, indexOf(events, "/tasks/exit", "")); ooms(events[last:]) > 0 {
		t.Errorf("an OOM is told after the exit:\n%s", eventLines(events))
	}
}

// SIGKILL is not a want of memory, nor is an OOM in a neighbour.
func TestOOMIsNotToldOfOthers(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("oom-quiet", group("oom"), memory).run()
	loud := l.member("oom-loud", group("oom"), memory, args(eater...)).run()
	loud.wait("")
	m.kill("", unix.SIGKILL)
	m.wait("")
	m.finish()
	if n := ooms(m.told("/tasks/delete", "")); n != 0 {
		t.Errorf("an OOM is told of a container that had none:\n%s", eventLines(l.sink.Of(m.id)))
	}
	loud.finish()
	if n := ooms(loud.told("/tasks/delete", "")); n != 1 {
		t.Errorf("an OOM is told %d times:\n%s", n, eventLines(l.sink.Of(loud.id)))
	}
}
