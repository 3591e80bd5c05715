package cell

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	EnterIfAsked()
	os.Exit(m.Run())
}

// shell runs a script in a cell that also has the programs of folder.
func shell(t *testing.T, script, folder string, links map[string]string) (Ended, string) {
	if os.Geteuid() != 0 {
		t.Skip("a cell needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	programs, err := tools.Ensure(ctx, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ended, err := Run(ctx, Command{
		Folders: []string{folder, programs.Dir},
		Links:   links,
		Args:    []string{"sh", "-ec", script},
		Env:     []string{"GREETING=hello"},
		Busybox: filepath.Base(programs.Busybox),
		Stdout:  &out,
		Stderr:  &out,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return ended, out.String()
}

func TestACellIsAMachineOfItsOwn(t *testing.T) {
	ended, out := shell(t, `
test "$GREETING" = hello
test "$(ls /run /tmp /var/lib | tr -s '\n' ' ')" = "/run: cell /tmp: /var/lib: "
touch /etc/cell-was-here /run/cell-was-here /tmp/cell-was-here
test -z "$(grep -v '^  *lo:' /proc/net/dev | grep :)"
cat /proc/self/cgroup
while read -r kind dir type rest; do
	case $type in cgroup|cgroup2) mkdir "$dir/of-the-cell";; esac
done < /proc/mounts
`, t.TempDir(), nil)
	if ended.Status != 0 {
		t.Errorf("the script ended with status %d:\n%s", ended.Status, out)
	}
	for line := range strings.Lines(out) {
		if path := strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]); path != "/" && path != "/cell" {
			t.Errorf("the cell sees the host's cgroups: %s", line)
		}
	}
	for _, file := range []string{"/etc/cell-was-here", "/run/cell-was-here", "/tmp/cell-was-here"} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s of the cell is on the host", file)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/of-the-cell", "/sys/fs/cgroup/*/of-the-cell", "/sys/fs/cgroup/*/*/of-the-cell"} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("cgroups of the cell are left: %v", left)
		}
	}
}

func TestALinkIsFoundBeforeTheProgramOfItsName(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"stock", "ours"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" as ${0##*/}\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, out := shell(t, "stock", dir, nil); out != "stock as stock\n" {
		t.Errorf("without a link: %q", out)
	}
	if _, out := shell(t, "stock", dir, map[string]string{"stock": "ours"}); out != "ours as stock\n" {
		t.Errorf("with a link: %q", out)
	}
}

func TestTheStatusAndWhatIsLeftAreTold(t *testing.T) {
	ended, out := shell(t, "sleep 4711 & until grep -q ^sleep /proc/$!/cmdline; do :; done; exit 3", t.TempDir(), nil)
	if ended.Status != 3 || !slices.Equal(ended.Left, []string{"sleep 4711"}) {
		t.Errorf("%+v:\n%s", ended, out)
	}
	if ended, _ := shell(t, "kill -9 $$", t.TempDir(), nil); ended.Status != 128+9 {
		t.Errorf("%+v of a killed command", ended)
	}
}
