package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/poll"
	"github.com/cleatrun/cleat/integration/tools"
)

// limit bounds one run whose programs are built already.
const limit = 3 * time.Minute

// envMain makes this binary the command; its value is the user who runs it.
const envMain = "CLEAT_BENCH_AS"

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	switch os.Getenv(envMain) {
	case "":
		os.Exit(m.Run())
	case "nobody":
		if err := unix.Setuid(65534); err != nil {
			panic(err)
		}
	}
	main()
}

// command is the benchmark in a process of its own, in the tiny form.
func command(ctx context.Context, user string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], append([]string{"-form", "tiny"}, args...)...)
	cmd.Env = append(os.Environ(), envMain+"="+user)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return cmd
}

func read(t *testing.T, dir string) *results {
	t.Helper()
	r := &results{}
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// placeOf is the folder that a run has told that it uses.
func placeOf(t *testing.T, output string) string {
	t.Helper()
	_, name, ok := strings.Cut(output, " in /tmp/")
	if !ok {
		t.Fatalf("the folder is not told:\n%s", output)
	}
	name, _, _ = strings.Cut(name, ".\n")
	return filepath.Join("/tmp", name)
}

// The tiny form takes each kind of measurement once and fills the document.
func TestTinyFormMeasuresAndFillsTheDocument(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	dir := t.TempDir()
	text, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(dir, "performance.md")
	if err := os.WriteFile(doc, bytes.ReplaceAll(text, []byte("| cleat |"), []byte("| old |")), 0o600); err != nil {
		t.Fatal(err)
	}
	// The others take longer and are made of the same parts.
	out, err := command(ctx, "root", "-only", "size|life|parallel|hand|exec|cpu|memory|kernel|floor|output|metrics|kill|idle|upgrade", "-out", dir, "-doc", doc).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := read(t, dir)
	for _, metric := range []string{
		"size.shim", "life.create", "life.total", "life-fifo.total", "exec.total", "cpu.start", "cpu.daemon", "cpu.delete", "memory-1.private", "grouped-2.each",
		"output-64k.rate", "output-100.rate", "terminal.rate", "output-64k.client", "metrics.time", "metrics.shim", "state.time", "state.cpu", "parallel.total", "kill.time", "idle.wakeups",
	} {
		for _, contender := range []string{cleat, stock} {
			if s := r.get(metric, contender); s == nil || s.Median <= 0 && metric != "idle.wakeups" && metric != "grouped-2.each" {
				t.Errorf("%s of %s: %+v", metric, contender, s)
			}
		}
	}
	if s := r.get("kill.spawned", stock); s == nil || s.Median != 1 {
		t.Errorf("containerd's own shim runs a program for a Kill, and here: %+v", s)
	}
	if s := r.get("upgrade-load.pause", cleat); s == nil || s.Median <= 0 {
		t.Errorf("upgrade: %+v", s)
	}
	if s := r.get("life.total", "runc"); s == nil || s.Median <= 0 {
		t.Errorf("by hand: %+v", s)
	}
	for i, row := range rows { // in the same run, so that they can be compared
		if v := r.Rows[i]; row.limit != "" && v.Limit <= 0 {
			t.Errorf("the limit of %q: %+v", row.what, v)
		}
	}
	if s := r.get("output-64k.rate", byHandName); s == nil || s.Median <= 0 {
		t.Errorf("output by hand: %+v", s)
	}
	for _, how := range bounds {
		if s := r.get(how.metric+".rate", byHandName); s == nil || s.Median <= 0 {
			t.Errorf("%s: %+v", how.what, s)
		}
	}
	if len(r.LeftOut) > 0 && r.LeftOut["kernel"] == "" || len(r.LeftOut) > 1 {
		t.Errorf("left out: %v", r.LeftOut)
	}
	filled, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"budgets", "life", "exec", "cpu", "output", "metrics", "parallel", "kill", "idle", "size"} {
		_, table, _ := strings.Cut(string(filled), "<!-- bench: "+name+" -->")
		table, _, _ = strings.Cut(table, markEnd)
		if !strings.Contains(table, "| cleat |") {
			t.Errorf("table %s is not filled:\n%s", name, table)
		}
	}
	if _, err := os.Stat(placeOf(t, string(out))); !os.IsNotExist(err) {
		t.Errorf("the place is left: %v", err)
	}
}

// Ctrl-C, and even sudden death, leave nothing behind that the next run would stumble
// over; after Ctrl-C, what was measured until then is there.
func TestInterruptedRunKeepsWhatItHasAndLeavesNothing(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"Ctrl-C": unix.SIGINT, "SIGKILL": unix.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			dir := t.TempDir()
			cmd := command(ctx, "root", "-only", "size|memory", "-out", dir)
			output, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for lines := bufio.NewScanner(output); lines.Scan(); {
				all.WriteString(lines.Text() + "\n")
				if strings.Contains(lines.Text(), "] memory:") {
					// As a terminal does, to all of the foreground.
					if err := unix.Kill(-cmd.Process.Pid, signal); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := cmd.Wait(); err == nil {
				t.Errorf("it ended with success:\n%s", &all)
			}
			folder := placeOf(t, all.String())
			if err := poll.Until(ctx, func() error { // the keeper tells nobody
				if _, err := os.Stat(folder); !os.IsNotExist(err) {
					return fmt.Errorf("%s is left: %w", folder, cmp.Or(err, os.ErrExist))
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if signal == unix.SIGINT {
				if r := read(t, dir); !r.Interrupted || r.get("size.shim", cleat) == nil {
					t.Errorf("kept: %+v", r.Metrics)
				}
				if !strings.Contains(all.String(), "interrupted: the above is what was measured until then") {
					t.Errorf("it does not say that it was interrupted:\n%s", &all)
				}
			}
		})
	}
}

// Without root, what needs none is measured and the rest is named.
func TestWithoutRootTheRestIsMeasured(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	programs, err := tools.Ensure(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	// Where an ordinary user may go and write.
	dir, err := os.MkdirTemp("/tmp", "cleat-bench-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := command(ctx, "nobody", "-only", "size|life", "-out", dir)
	cmd.Env = append(cmd.Env, tools.EnvBuilt+"="+programs.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := read(t, dir)
	if r.get("size.shim", cleat) == nil || !strings.Contains(r.LeftOut["life"], "it needs root") {
		t.Errorf("measured %v, left out %v", r.Metrics, r.LeftOut)
	}
	unmarked := filepath.Join(dir, "unmarked.md")
	if err := os.WriteFile(unmarked, []byte("<!-- bench: life -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]string{{"-doc", filepath.Join(dir, "none.md")}, {"-doc", unmarked}, {"-beside", filepath.Join(dir, "none")}, {"-form", "huge"}, {"-only", "("}, {"what"}, {"-runs", "0"}, {"-only", "nothing-of-the-kind"}} {
		cmd := command(ctx, "root", append(wrong, "-out", dir)...)
		cmd.Env = append(cmd.Env, tools.EnvBuilt+"="+programs.Dir)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "bench: ") {
			t.Errorf("%v: %v\n%s", wrong, err, out)
		}
		if strings.Contains(string(out), "[1/") {
			t.Errorf("%v: it measures before it tells what is wrong:\n%s", wrong, out)
		}
	}
}

// What cannot be had, to fetch or to build, is named; the rest is measured. What is
// there of another run, here its containerd, is told and left alone.
func TestWhatIsMissingIsNamedAndNeighboursAreLeftAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	programs, err := tools.Ensure(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	neighbour, err := daemon.Start(ctx, daemon.Config{Tools: programs})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := neighbour.Remove(); err != nil {
			t.Error(err)
		}
	}()
	// A folder without conmon and crun, and nothing to build with.
	built, dir := t.TempDir(), t.TempDir()
	for _, file := range programs.Files() {
		below, err := filepath.Rel(programs.Dir, file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(built, below)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(file, filepath.Join(built, below)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(ctx, "root", "-form", "quick", "-only", "size|floor|conmon", "-out", dir)
	cmd.Env = append(cmd.Env, tools.EnvBuilt+"="+built)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := read(t, dir)
	for what, why := range map[string]string{"conmon": "conmon cannot be had", "crun": "find crun", plain: "no Go here", "floor": "no Go here"} {
		if !strings.Contains(r.LeftOut[what], why) || !strings.Contains(string(out), "left out: "+what) {
			t.Errorf("%s is left out: %q\n%s", what, r.LeftOut[what], out)
		}
	}
	if r.get("size.shim", cleat) == nil || r.get("size.shim", stock) == nil {
		t.Errorf("measured: %v", r.Metrics)
	}
	if !strings.Contains(string(out), "of other test runs, or of one that was broken off") {
		t.Errorf("the neighbour is not told:\n%s", out)
	}
	if client, err := neighbour.Client(); err != nil {
		t.Error(err)
	} else if _, err := client.Version(ctx); err != nil {
		t.Errorf("the neighbour does not answer any more: %v", err)
	}
	if _, err := os.Stat(placeOf(t, string(out))); !os.IsNotExist(err) {
		t.Errorf("the place is left: %v", err)
	}
}
