package rootless

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The user looks after the shims by the operator's tool, in the namespaces where
// they are. Root, outside, sees whose they are.
func TestOperatorIsTheUser(t *testing.T) {
	if runtime != "io.containerd.cleat.v2" {
		t.Skip("the tool is for our shim")
	}
	h := newHome(t)
	h.start("box")
	tool := func(cmd *exec.Cmd, words ...string) {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
		for line := range strings.Lines(string(out)) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return
			}
		}
		t.Errorf("%s: no line has %q:\n%s", cmd, words, out)
	}
	tool(exec.CommandContext(h.ctx, programs.Cleat, "ps", "-n", h.Namespace), "box", fmt.Sprintf("belongs to user %d", user))
	tool(h.command(h.Path("home", "bin", "cleat"), "ps", "-n", h.Namespace), "box", " 1 ")
	tool(h.command(h.Path("home", "bin", "cleat"), "inspect", "box"), "box", "running")
	tool(h.command(h.Path("home", "bin", "cleat"), "doctor", "containerd"), "state", h.Path("home", "state"))

	program, err := os.ReadFile(programs.Shim)
	if err != nil {
		t.Fatal(err)
	}
	other := h.Path("home", "bin", "other")
	if err := os.WriteFile(other, append(program, "another program"...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(other, user, user); err != nil {
		t.Fatal(err)
	}
	tool(h.command(h.Path("home", "bin", "cleat"), "upgrade", "box", "--to", other), "1 of 1", "calls waited")
	h.ctr("tasks", "kill", "--signal", "SIGTERM", "box")
	h.becomes("box", "STOPPED")
	h.delete("box", 9)
	h.nothingLeft()
}
