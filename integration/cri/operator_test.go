package cri

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// An operator's tool shows the pods of a node as it shows other shims, and tells
// which of containerd's runtime handlers are shims of cleat.
func TestOperatorOfANode(t *testing.T) {
	t.Parallel()
	if runtimeName != ourRuntime {
		t.Skip("the tool is for our shim")
	}
	d := sharedDaemon(t)
	p := runPod(t, d, typed, "operated")
	first := p.run("first", forever)
	second := p.run("second", forever)
	shim := p.shimPID(p.id)
	tool := func(args []string, words ...string) {
		t.Helper()
		out, err := exec.CommandContext(p.ctx, programs.Cleat, args...).CombinedOutput()
		if err != nil {
			t.Errorf("cleat %s: %v", strings.Join(args, " "), err)
		}
	next:
		for line := range strings.Lines(string(out)) {
			for _, word := range words {
				if !strings.Contains(line, word) {
					continue next
				}
			}
			return
		}
		t.Errorf("cleat %s: no line has %q:\n%s", strings.Join(args, " "), words, out)
	}
	// Three containers: the pod has one of its own.
	tool([]string{"ps", "-n", "k8s.io"}, p.id[:12]+" ", strconv.Itoa(shim), " 3 ")
	for _, id := range []string{p.id[:12], strconv.Itoa(shim), first.id[:12]} {
		tool([]string{"inspect", id, "-n", "k8s.io"}, first.id, "running")
	}
	for _, handler := range []string{typed, plain} {
		tool([]string{"doctor", "containerd"}, "ok", "handler "+handler, programs.Shim, "a shim of cleat")
	}
	program, err := os.ReadFile(programs.Shim)
	if err != nil {
		t.Fatal(err)
	}
	other := d.Path("another-shim")
	if err := os.WriteFile(other, append(program, "another program"...), 0o755); err != nil {
		t.Fatal(err)
	}
	tool([]string{"upgrade", second.id, "-n", "k8s.io", "--to", other}, "1 of 1", p.id, "calls waited")
	if again := p.shimPID(first.id); again != shim {
		t.Errorf("the shim was process %d and is %d", shim, again)
	}
	if out := second.output("echo", "all the same"); out != "all the same\n" {
		t.Errorf("after the upgrade an exec wrote %q", out)
	}
	p.end()
}
