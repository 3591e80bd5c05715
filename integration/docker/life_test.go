package docker

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cleatrun/cleat/integration/terminal"
)

// forever runs until it is told to end, and says how.
var forever = []string{"sh", "-c", `trap 'echo bye; exit 9' TERM; trap 'echo hup' HUP; echo ready; while :; do sleep 0.02; done`}

// What runs is the shim under test, by whatever name.
func TestShimThatRunsIsTheOneUnderTest(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("which", nil, forever...)
		name := "containerd-shim-cleat-v2"
		if b.kind.dropIn || stock {
			name = "containerd-shim-runc-v2"
		}
		dir := b.Path("bin")
		if stock {
			dir = "/usr/bin"
		}
		for _, p := range b.Processes() {
			if strings.Contains(p.Command, dir+"/"+name) {
				return
			}
		}
		t.Errorf("no %s/%s among:\n%v", dir, name, b.Processes())
	})
}

func TestOutputAndStatusesOfRunAndExec(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		rm := []string{"--rm"}
		b.expect("run", b.ask(b.run(rm, "sh", "-c", "echo out; echo err >&2; exit 7")...), answer{"out\n", "err\n", 7})
		input := finish(t, b.docker(b.ctx, b.run([]string{"--rm", "-i"}, "cat")...), strings.NewReader("one\ntwo\n"))
		b.expect("input", input, answer{"one\ntwo\n", "", 0})

		b.start("host", nil, forever...)
		b.expect("exec", b.ask("exec", "host", "sh", "-c", "echo out; echo err >&2; exit 4"), answer{"out\n", "err\n", 4})
		for program, want := range map[string]int{"/no/such/program": 127, "/etc/passwd": 126} {
			a := b.ask(b.run(rm, program)...)
			if a.code != want || !strings.Contains(a.stderr, program) {
				t.Errorf("run %s ended with %d, want %d, and wrote %q", program, a.code, want, a.stderr)
			}
			// Docker of these releases tells 126 for every exec that cannot start.
			a = b.ask("exec", "host", program)
			if a.code != 126 || !strings.Contains(a.stdout+a.stderr, program) {
				t.Errorf("exec %s ended with %d, want 126, and wrote %q", program, a.code, a.stdout+a.stderr)
			}
		}
	})
}

// What a container writes is in its logs, all of it and nothing else: not what
// the OCI runtime says when it cannot make the container.
func TestLogsHoldWhatTheContainerWrote(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("writes", nil, "sh", "-c", "seq 1 50000; seq 1 50000 >&2")
		b.do("wait", "writes")
		var want strings.Builder
		for i := range 50000 {
			fmt.Fprintln(&want, i+1)
		}
		logs := b.ask("logs", "writes")
		if logs.stdout != want.String() || logs.stderr != want.String() {
			t.Errorf("the logs have %d and %d bytes, want %d each", len(logs.stdout), len(logs.stderr), want.Len())
		}

		b.containers = append(b.containers, "fails")
		b.ask(b.run([]string{"--name", "fails"}, "/no/such/program")...)
		b.expect("logs of a container that was never made", b.ask("logs", "fails"), answer{})
	})
}

// A file that daemon.json names for a runtime is read by the shim.
func TestOptionsInDaemonJSONReachTheShim(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		if b.kind.config != named {
			return // nothing is said there
		}
		write := func(text string) {
			if err := os.WriteFile(b.Path("cleat.toml"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("stdio = \"teapot\"\n")
		defer write(cleatConfig)
		if a := b.ask(b.run([]string{"--rm"}, "true")...); a.code != 125 || !strings.Contains(a.stderr, "teapot") {
			t.Errorf("with a wrong value docker run ended with %d and wrote %q", a.code, a.stderr)
		}
	})
}

func TestTopStatsPauseKillStopWait(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("life", []string{"--memory", "64m", "--pids-limit", "20"}, forever...)
		b.logged("life", "ready")
		if top := b.do("top", "life"); !strings.Contains(top, "sh -c trap") {
			t.Errorf("docker top shows\n%s", top)
		}
		stats := b.do("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "life")
		if !strings.Contains(stats, "/ 64MiB") || strings.HasPrefix(stats, "0B") || strings.HasSuffix(stats, " 0") {
			t.Errorf("docker stats shows %q", stats)
		}
		b.do("pause", "life")
		b.becomes("life", "{{.State.Status}}", "paused")
		if a := b.ask("exec", "life", "true"); a.code == 0 {
			t.Error("an exec in a paused container succeeds")
		}
		b.do("unpause", "life")
		b.becomes("life", "{{.State.Status}}", "running")
		b.do("kill", "--signal", "HUP", "life")
		b.logged("life", "hup")
		b.do("update", "--memory", "80m", "--memory-swap", "-1", "life")

		waits := b.docker(b.ctx, "wait", "life")
		var out strings.Builder
		waits.Stdout = &out
		if err := waits.Start(); err != nil {
			t.Fatal(err)
		}
		b.do("stop", "life")
		if err := waits.Wait(); err != nil || strings.TrimSpace(out.String()) != "9" {
			t.Errorf("docker wait says %q, %v", out.String(), err)
		}
		b.logged("life", "bye")
		if got := b.tells("life", "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"); got != "exited 9 false" {
			t.Errorf("after its end the container is %q", got)
		}

		b.do("start", "life")
		b.becomes("life", "{{.State.Status}}", "running")
		b.do("kill", "life")
		b.becomes("life", "{{.State.Status}} {{.State.ExitCode}}", "exited 137")
	})
}

func TestOOMIsTold(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("oom", []string{"--memory", "16m"}, "tail", "/dev/zero")
		b.do("wait", "oom")
		if got := b.tells("oom", "{{.State.ExitCode}} {{.State.OOMKilled}}"); got != "137 true" {
			t.Errorf("after it was killed for its memory the container is %q", got)
		}
	})
}

func TestRestartPolicy(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("fails", []string{"--restart", "on-failure:2"}, "sh", "-c", "echo once; exit 3")
		b.becomes("fails", "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}", "2 exited 3")
		if logs := b.do("logs", "fails"); logs != "once\nonce\nonce" {
			t.Errorf("three runs wrote %q", logs)
		}
		b.start("always", []string{"--restart", "always"}, forever...)
		b.logged("always", "ready")
		b.ask("exec", "always", "sh", "-c", "kill -TERM 1")
		b.becomes("always", "{{.RestartCount}} {{.State.Status}}", "1 running")
	})
}

func TestHealthChecks(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.start("health", []string{"--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "2"},
			"sh", "-c", "touch /tmp/well; sleep 1000")
		b.becomes("health", "{{.State.Health.Status}}", "healthy")
		b.do("exec", "health", "rm", "/tmp/well")
		b.becomes("health", "{{.State.Health.Status}}", "unhealthy")
	})
}

// A person works on a terminal, leaves by the detach keys, and comes back.
func TestTerminal(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.containers = append(b.containers, "person")
		tty := terminal.Start(t, b.docker(b.ctx, b.run([]string{"-it", "--name", "person"}, "sh")...), 20, 70)
		tty.Write("until [ \"`stty size`\" = '20 70' ]; do sleep 0.02; done; echo size $((1+1)) known\n")
		tty.Expect("size 2 known")
		tty.Resize(31, 90)
		tty.Write("until [ \"`stty size`\" = '31 90' ]; do sleep 0.02; done; echo size $((1+2)) known\n")
		tty.ExpectResized("size 3 known")
		tty.Write("\x10\x11") // ctrl-p ctrl-q
		tty.End()

		again := terminal.Start(t, b.docker(b.ctx, "attach", "person"), 20, 70)
		again.Write("echo back $((2+2))\n")
		again.Expect("back 4")
		exec := terminal.Start(t, b.docker(b.ctx, "exec", "-it", "person", "sh"), 25, 80)
		exec.Write("tty; exit 11\n")
		exec.Expect("/dev/pts/")
		if code := exec.End(); code != 11 {
			t.Errorf("a shell by docker exec -it ended with %d, want 11:\n%s", code, exec.Shown())
		}
		again.Write("exit 12\n")
		if code := again.End(); code != 12 {
			t.Errorf("the shell ended with %d, want 12:\n%s", code, again.Shown())
		}
	})
}

func TestSeveralAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				word := fmt.Sprint("number ", i)
				a := b.ask(b.run([]string{"--rm"}, "sh", "-c", fmt.Sprintf("echo %s; exit %d", word, i))...)
				b.expect(word, a, answer{word + "\n", "", i})
			})
		}
		all.Wait()
	})
}
