package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cleatrun/cleat/integration/image"
)

const name = "demo"

// program is what the container runs. It ends with status 7 when it is asked
// to.
const program = `echo "hello, I am process $$ in here"; trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done`

// life is a container's life as its user sees it.
func life(t *teller, archive string) {
	output := filepath.Join(filepath.Dir(archive), "output.log")

	t.step("An image is imported: a static busybox and nothing else")
	t.ctr(0, "images", "import", archive)

	t.step("A container is created. Nothing runs yet")
	t.ctr(0, "containers", "create", "--runtime", shimRuntime, image.Name, name, "sh", "-c", program)
	t.ctr(0, "containers", "ls")

	t.step("Its task is started: containerd runs the shim, the shim runs runc")
	t.ctr(0, "tasks", "start", "--detach", "--log-uri", "file://"+output, name)
	t.ctr(0, "tasks", "ls")
	t.wants("RUNNING")
	t.ctr(0, "tasks", "ps", name)
	t.do("This is its shim:", func() (string, error) { return shimProcess(t.daemon.Sockets(), name) })
	t.do("This is what it has written:", func() (string, error) { return t.grown(output) })

	t.step("Other processes run in it, and their exit codes come back")
	t.ctr(0, "tasks", "exec", "--exec-id", "first", name, "id")
	t.wants("uid=0")
	t.ctr(3, "tasks", "exec", "--exec-id", "second", name, "sh", "-c", "echo this one fails; exit 3")

	t.step("What it uses")
	t.ctr(0, "tasks", "metrics", name)

	t.step("It is paused, and resumed")
	t.ctr(0, "tasks", "pause", name)
	t.ctr(0, "tasks", "ls")
	t.wants("PAUSED")
	t.ctr(0, "tasks", "resume", name)

	t.step("containerd is killed and started again. The container does not notice")
	t.do(fmt.Sprintf("$ kill -9 %d; containerd &", t.daemon.PID()), func() (string, error) {
		if err := t.daemon.Kill(); err != nil {
			return "", err
		}
		return "", t.daemon.Run(t.ctx)
	})
	t.ctr(0, "tasks", "ls")
	t.wants("RUNNING")

	t.step("It is asked to end. Its exit code is 7")
	t.ctr(0, "tasks", "kill", "--signal", "SIGTERM", name)
	t.do("", func() (string, error) { return "", t.stopped(name) })
	t.ctr(0, "tasks", "ls")
	t.wants("STOPPED")
	t.ctr(0, "tasks", "delete", name)
	t.wants("exit code 7")
	t.do("These were its last words:", func() (string, error) {
		text, err := os.ReadFile(output)
		return string(text), err
	})

	t.step("The container and its image are removed")
	t.ctr(0, "containers", "rm", name)
	t.ctr(0, "images", "rm", "--sync", image.Name)
}

// shimProcess tells about the shim of a container, in one line.
func shimProcess(sockets, id string) (string, error) {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		args := strings.Split(string(text), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") || !strings.Contains(string(text), "\x00-id\x00"+id+"\x00") ||
			!strings.Contains(string(text), filepath.Dir(sockets)+"/") {
			continue
		}
		dir := filepath.Dir(entry)
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			return "", err
		}
		line := fmt.Sprintf("process %s, %s", filepath.Base(dir), filepath.Base(args[0]))
		for field := range strings.Lines(string(status)) {
			if key, value, _ := strings.Cut(field, ":"); key == "VmRSS" || key == "Threads" {
				line += fmt.Sprintf(", %s %s", key, strings.TrimSpace(value))
			}
		}
		return line, nil
	}
	return "", fmt.Errorf("no shim of %s is found", id)
}
