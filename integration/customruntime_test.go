package integration

// docs/custom-runtime.md, followed word by word: its commands are executed in
// their order, and write what it says they write.

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatrun/cleat/integration/image"
)

// step is a block of commands of the document, and the block of what they write.
type step struct {
	line           int
	commands, text string
}

// steps reads the document.
func steps(t *testing.T, document string) (list []step) {
	t.Helper()
	kind := ""
	number := 0
	for line := range strings.Lines(document) {
		number++
		mark, ok := strings.CutPrefix(line, "```")
		switch {
		case ok && kind == "":
			kind = strings.TrimSpace(mark)
			if kind == "sh" {
				list = append(list, step{line: number + 1})
			}
		case ok:
			kind = ""
		case kind == "sh":
			list[len(list)-1].commands += line
		case kind == "text":
			list[len(list)-1].text += line
		}
	}
	return list
}

// privateMounts makes a mount namespace in which folders of the host have the
// content of others, and returns the command that enters it. It is gone when the
// test has ended, and with it all that was mounted in it.
func privateMounts(t *testing.T, env []string, over map[string]string) (enter []string) {
	t.Helper()
	script := ""
	for _, dir := range []string{"/etc", "/usr/local/bin", "/var/log", "/run/containerd"} { // parents first
		script += fmt.Sprintf("mount --bind %s %s; ", over[dir], dir)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", script+"echo ready; exec sleep 100000")
	cmd.Env = env
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("make a mount namespace: %q, %v", line, err)
	}
	return []string{"nsenter", "--target", strconv.Itoa(cmd.Process.Pid), "--mount", "--"}
}

func TestCustomRuntimeOfTheDocument(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	document, err := os.ReadFile("../docs/custom-runtime.md")
	if os.IsNotExist(err) {
		t.Skip("the machine has no documents")
	}
	if err != nil {
		t.Fatal(err)
	}
	list := steps(t, string(document))
	if len(list) < 8 {
		t.Fatalf("the document has only %d steps", len(list))
	}

	dir := t.TempDir()
	over := map[string]string{}
	for _, host := range []string{"/etc", "/usr/local/bin", "/var/log", "/run/containerd"} {
		over[host] = filepath.Join(dir, filepath.Base(host))
		if err := os.MkdirAll(over[host], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(host, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("cp", "-a", "/etc/.", over["/etc"]).CombinedOutput(); err != nil {
		t.Fatalf("copy /etc: %v: %s", err, out)
	}
	os.RemoveAll(filepath.Join(over["/etc"], "cleat"))
	program, err := os.ReadFile(programs.Shim)
	if err == nil {
		err = os.WriteFile(filepath.Join(over["/usr/local/bin"], filepath.Base(programs.Shim)), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	enter := privateMounts(t, os.Environ(), over)

	config := config()
	config.Path = []string{"/usr/local/bin", filepath.Dir(ociRuntime(t, "crun"))}
	config.Tools.Containerd = interpreted(t, fmt.Sprintf("#!%s sh\nexec %s %s \"$@\"\n", programs.Busybox, strings.Join(enter, " "), programs.Containerd))
	d := ownDaemon(t, config)
	ctr(t, d, "images", "tag", image.Name, "docker.io/library/busybox:latest")
	for _, s := range list {
		cmd := exec.CommandContext(bounded(t), enter[0], append(enter[1:], "sh", "-e")...)
		cmd.Dir = dir
		cmd.Env = append(d.Environ(append(config.Path, programs.Dir)...),
			"CONTAINERD_ADDRESS="+d.Address(), "CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1", "CONTAINERD_NAMESPACE="+d.Namespace)
		cmd.Stdin = strings.NewReader(s.commands)
		stdout, stderr, code := finish(t, cmd)
		if code != 0 || stderr != "" {
			t.Fatalf("the commands of line %d end with %d:\n%s%s", s.line, code, stdout, stderr)
		}
		// Of an error it tells the end that matters.
		got := strings.Split(strings.TrimSpace(stdout), "\n")
		want := strings.Split(strings.TrimSpace(s.text), "\n")
		for i, line := range want {
			if i >= len(got) || got[i] != line && !(strings.HasPrefix(got[i], "ctr: ") && strings.Contains(got[i], line)) {
				t.Fatalf("the commands of line %d write\n%s\nwant\n%s", s.line, stdout, s.text)
			}
		}
	}
	nothingLeft(t, d)
}
