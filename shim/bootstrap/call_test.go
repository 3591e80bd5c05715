package bootstrap

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
	"github.com/containerd/errdefs"
)

func TestParseTakesEveryFlagOfContainerdsShim(t *testing.T) {
	const name = "/usr/bin/containerd-shim-cleat-v2"
	all := Call{InvokedAs: name, Namespace: "k8s.io", ID: "a-1_b.C", Address: "/a", Bundle: "/b", Socket: "/s", Debug: true}
	for _, c := range []struct {
		args   string
		action Action
	}{
		{"-namespace k8s.io -id a-1_b.C -address /a -publish-binary /c -bundle /b -socket /s -debug-socket /d -debug start", Start},
		{"--namespace k8s.io --id a-1_b.C --address /a --publish-binary /c --bundle /b --socket /s --debug-socket /d --debug DELETE", Delete},
		{"-namespace=k8s.io -id=a-1_b.C -address=/a -bundle=/b -socket=/s -debug=true", Serve},
	} {
		want := all
		want.Action = c.action
		got, err := Parse(append([]string{name}, strings.Fields(c.args)...))
		if err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", c.args, got, err, want)
		}
	}
	for flag, action := range map[string]Action{"-v": Version, "--v": Version, "-version": Version, "--version": Version, "-info": Info, "--info": Info} {
		if got, err := Parse([]string{name, flag}); err != nil || got.Action != action {
			t.Errorf("%s: %+v, %v", flag, got, err)
		}
	}
}

func TestABadCommandLineIsOneSentence(t *testing.T) {
	shim := built.Shim(t)
	for args, word := range map[string]string{
		"-nonsense start":             "-nonsense",
		"-namespace n -id i stop":     `"stop"`,
		"-debug=perhaps start":        "perhaps",
		"-id i start":                 "-namespace is missing",
		"-namespace n delete":         "-id is missing",
		"-namespace n -id ../x start": `-id "../x"`,
		"-namespace a/b -id i start":  `-namespace "a/b"`,
		"-namespace n -id -id start":  `-id "-id"`,
		"-namespace":                  "-namespace",
		"":                            "-namespace is missing",
		"-namespace n -id i":          "descriptor 3",
		"-help":                       "start|delete",
		"-namespace n -id " + long(77) + " start": "longer than 76",
	} {
		cmd := exec.Command(shim, strings.Fields(args)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if status := built.Run(t, cmd, 10*time.Second); status != 1 || stdout.Len() > 0 {
			t.Errorf("%q: status %d, stdout %q", args, status, stdout.String())
		}
		(&node{t: t}).oneSentence(stderr.String(), "containerd-shim-cleat-v2: ", word)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestIdentifiersAreContainerds(t *testing.T) {
	for _, good := range []string{"a", "A9", "a.b", "a-b_c.d", long(76), "0", "default", "k8s.io"} {
		if err := validate("id", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "a..b", ".a", "a.", "-a", "a-", "a--b", "a._b", "a/b", "a b", "ä", "a\x00", "a\n", long(77)} {
		if err := validate("id", bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The names of the variables are those of the Makefile.
func TestVersionIsWhatTheLinkerWasTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "containerd-shim-cleat-v2")
	out, err := exec.Command("go", "build", "-tags", "no_grpc", "-ldflags", "-X main.release=v9.8.7 -X main.revision=abcdef",
		"-o", path, "github.com/cleatrun/cleat/cmd/containerd-shim-cleat-v2").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := exec.Command(path, "-v").Output()
	if err != nil || !strings.Contains(string(text), "  Version:  v9.8.7\n  Revision: abcdef\n") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestVersionIsInContainerdsForm(t *testing.T) {
	for _, flag := range []string{"-v", "--version"} {
		cmd := exec.Command(built.Shim(t), flag)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if status := built.Run(t, cmd, 10*time.Second); status != 0 || stderr.Len() > 0 {
			t.Errorf("status %d, stderr %q", status, stderr.String())
		}
		lines := strings.Split(stdout.String(), "\n")
		want := []string{"containerd-shim-cleat-v2:", "  Version:  ", "  Revision: ", "  Go version: go1.", "", ""}
		if len(lines) != len(want) {
			t.Fatalf("%q", stdout.String())
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, want[i]) {
				t.Errorf("line %d is %q, want %q", i, line, want[i])
			}
		}
	}
}
