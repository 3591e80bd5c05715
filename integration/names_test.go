package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"

	"github.com/cleatrun/cleat/integration/image"
)

// TestShimUnderStocksName puts the shim under test in the place of containerd's
// own, as a link and as a copy. A plain `ctr run` must use it.
func TestShimUnderStocksName(t *testing.T) {
	t.Parallel()
	link, copied := t.TempDir(), t.TempDir()
	const name = "containerd-shim-runc-v2"
	if err := os.Symlink(programs.Shim, filepath.Join(link, name)); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(programs.Shim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, name), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for how, dir := range map[string]string{"link": link, "copy": copied} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			config := config()
			config.Path = []string{dir}
			config.Runtime = "" // that of the client, which is runc
			d := ownDaemon(t, config)

			if out := ctr(t, d, "run", "--rm", image.Name, "foreground", "echo", "hello"); out != "hello\n" {
				t.Errorf("echo hello wrote %q", out)
			}
			ctr(t, d, append([]string{"run", "-d", image.Name, "detached"}, forever...)...)
			shim, err := d.Shim("detached")
			if err != nil {
				t.Fatal(err)
			}
			defer shim.Close()
			answer, err := shim.Connect(bounded(t), &task.ConnectRequest{ID: "detached"})
			if err != nil {
				t.Fatal(err)
			}
			running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", answer.ShimPid))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !os.SameFile(running, ours) {
				t.Errorf("the shim of the container is not the one in the folder that comes first")
			}
			catches(t, answer.TaskPid, 15)
			ctr(t, d, "tasks", "kill", "detached")
			endDetached(t, d, "detached", 9)
			nothingLeft(t, d)
		})
	}
}

// TestNameOfTheLinkChoosesTheOCIRuntime links the shim as that of another OCI
// runtime: containers are run by it with no configuration at all.
func TestNameOfTheLinkChoosesTheOCIRuntime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(programs.Shim, filepath.Join(dir, "containerd-shim-other-v2")); err != nil {
		t.Fatal(err)
	}
	// The other OCI runtime is runc, and leaves a note of what it is asked.
	notes := filepath.Join(dir, "notes")
	script := fmt.Sprintf("#!%s sh\necho \"$@\" >>%s\nexec %s \"$@\"\n", programs.Busybox, notes, programs.Runc)
	if err := os.WriteFile(filepath.Join(dir, "other"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	config := config()
	config.Path = []string{dir}
	d := ownDaemon(t, config)
	out := ctr(t, d, "run", "--rm", "--runtime", "io.containerd.other.v2", image.Name, "other", "echo", "hello")
	if out != "hello\n" {
		t.Errorf("echo hello wrote %q", out)
	}
	asked, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{" create ", " start ", " delete "} {
		if !strings.Contains(string(asked), word) {
			t.Errorf("the other OCI runtime was not asked to%s but\n%s", word, asked)
		}
	}
	nothingLeft(t, d)
}

// TestVersion asks the program itself, and containerd, what it is.
func TestVersion(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"-v", "-version"} {
		out, err := exec.CommandContext(bounded(t), shimProgram(), flag).Output()
		if err != nil || !strings.Contains(string(out), filepath.Base(shimProgram())) || !strings.Contains(string(out), "Version:") {
			t.Errorf("%s %s: %v, %q", shimProgram(), flag, err, out)
		}
	}
	d := sharedDaemon(t)
	// What containerd shows of a runtime it has asked with -info.
	out := ctr(t, d, "plugins", "inspect-runtime", "--runtime", runtimeName)
	for _, want := range []string{`"Name": "` + runtimeName + `"`, `"Features"`, `"mountOptions"`} {
		if !strings.Contains(out, want) {
			t.Errorf("ctr plugins inspect-runtime shows no %s but:\n%s", want, out)
		}
	}
}
