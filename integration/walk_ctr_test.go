package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/terminal"
)

// TestWalkWithCtr walks the whole life of a container at the command line, from
// an image in a registry to nothing left over.
func TestWalkWithCtr(t *testing.T) {
	d := sharedDaemon(t)
	ctx := bounded(t)
	const id = "walk-ctr"
	ref := pullable(t, "walk/ctr:latest")

	ctr(t, d, "images", "pull", "--plain-http", ref)
	if names := strings.Fields(ctr(t, d, "images", "ls", "-q")); !slices.Contains(names, ref) {
		t.Fatalf("pulled %s, but there are only the images %q", ref, names)
	}
	ctr(t, d, append([]string{"containers", "create", "--runtime", runtimeName, ref, id}, forever...)...)
	ctr(t, d, "tasks", "start", "-d", id)
	task := listed(t, d, id)
	if task.status != "RUNNING" || alive(task.pid) != nil {
		t.Fatalf("ctr tasks ls shows %+v of a task that was started", task)
	}

	t.Run("execs at once", func(t *testing.T) { execsAtOnce(t, d, id) })

	tty := terminal.Start(t, d.Ctr(ctx, "tasks", "exec", "-t", "--exec-id", "terminal", id, "sh"), 30, 101)
	tty.Write(untilSize(30, 101) + "exit 11\n")
	if code := tty.End(); code != 11 {
		t.Errorf("a shell on a terminal of 30 by 101 ended with %d, want 11, and showed:\n%s", code, tty.Shown())
	}

	// To a file: nobody would remove the FIFOs of an exec that ctr has left.
	ctr(t, d, "tasks", "exec", "-d", "--log-uri", "file://"+d.Path("walk.log"), "--exec-id", "background", id, "sleep", "1000")
	ps := ctr(t, d, "tasks", "ps", id)
	if !strings.Contains(ps, strconv.Itoa(task.pid)) || !strings.Contains(ps, "background") {
		t.Errorf("ctr tasks ps shows neither the first process %d nor the exec background, but:\n%s", task.pid, ps)
	}
	metrics := ctr(t, d, "tasks", "metrics", "--format", "json", id)
	if used := memoryUsed(t, metrics); used < 4096 || used > 100<<20 {
		t.Errorf("a shell and two sleeps use %d bytes of memory, says ctr tasks metrics:\n%s", used, metrics)
	}

	catches(t, uint32(task.pid), syscall.SIGTERM)
	ctr(t, d, "tasks", "kill", "-s", "SIGTERM", id)
	eventually(t, func() error {
		if task := listed(t, d, id); task.status != "STOPPED" {
			return fmt.Errorf("after SIGTERM the task is %+v", task)
		}
		return nil
	})
	if code := deleteTask(t, d, id); code != 9 {
		t.Errorf("the task ended with exit code %d, want 9", code)
	}
	ctr(t, d, "containers", "rm", id)
	ctr(t, d, "images", "rm", "--sync", ref)
	nothingLeft(t, d)
}

// TestRunFromImportedFile runs a container from an image that was imported and
// not pulled.
func TestRunFromImportedFile(t *testing.T) {
	d := sharedDaemon(t)
	ctr(t, d, "images", "import", imageFile) // what it writes are bars, if there is time for them
	if out := ctr(t, d, "images", "ls", "-q"); !strings.Contains(out, image.Name) {
		t.Fatalf("imported %s, and there are:\n%s", image.Name, out)
	}
	if out := ctr(t, d, run([]string{"--rm"}, "imported", "echo", "hello")...); out != "hello\n" {
		t.Errorf("echo hello wrote %q", out)
	}
	nothingLeft(t, d)
}

// pullable puts the test image into a registry on loopback and returns the
// name to pull it by.
func pullable(t *testing.T, path string) string {
	t.Helper()
	registry, err := image.ServeRegistry()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { registry.Close() })
	ref, err := registry.Add(testImage, path)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// execsAtOnce runs several commands at once in a container. Each must have its
// own output and its own exit code.
func execsAtOnce(t *testing.T, d *daemon.Daemon, id string) {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			name := fmt.Sprintf("exec-%d", i)
			cmd := d.Ctr(bounded(t), "tasks", "exec", "--exec-id", name, id, "sh", "-c", fmt.Sprintf("echo this is %s; exit %d", name, 20+i))
			out, err := cmd.Output()
			if got := cmd.ProcessState.ExitCode(); got != 20+i || string(out) != "this is "+name+"\n" {
				t.Errorf("%s ended with %d (%v), want %d, and wrote %q", name, got, err, 20+i, out)
			}
		})
	}
	all.Wait()
}

// untilSize is what to tell a shell so that it goes on only when its terminal
// has that size, which ctr sets soon after the start.
func untilSize(rows, columns int) string {
	return fmt.Sprintf("until [ \"`stty size`\" = '%d %d' ]; do sleep 0.01; done; ", rows, columns)
}

// row is a line of ctr tasks ls.
type row struct {
	pid    int
	status string
}

// listed is what ctr tasks ls shows of a task; the zero row when it does not.
func listed(t *testing.T, d *daemon.Daemon, id string) row {
	t.Helper()
	for line := range strings.Lines(ctr(t, d, "tasks", "ls")) {
		field := strings.Fields(line) // TASK PID STATUS
		if len(field) == 3 && field[0] == id {
			pid, err := strconv.Atoi(field[1])
			if err != nil {
				t.Fatalf("ctr tasks ls: %q: %v", line, err)
			}
			return row{pid: pid, status: field[2]}
		}
	}
	return row{}
}

// deleteTask deletes a task with ctr, which tells the exit code in a warning
// when it is not zero.
func deleteTask(t *testing.T, d *daemon.Daemon, id string) int {
	t.Helper()
	stdout, stderr, code := finish(t, d.Ctr(bounded(t), "tasks", "delete", id))
	if code != 0 {
		t.Fatalf("ctr tasks delete ended with %d:\n%s%s", code, stdout, stderr)
	}
	_, after, told := strings.Cut(stderr, "non-zero exit code ")
	if !told {
		return 0
	}
	status, err := strconv.Atoi(strings.TrimRight(after, "\"\n"))
	if err != nil {
		t.Fatalf("ctr tasks delete wrote:\n%s", stderr)
	}
	return status
}

// memoryUsed finds the bytes of memory in what ctr tasks metrics writes: that
// of cgroup v1 or that of v2.
func memoryUsed(t *testing.T, metrics string) uint64 {
	t.Helper()
	type number uint64
	var m struct {
		Memory struct {
			Usage json.RawMessage `json:"usage"`
		} `json:"memory"`
	}
	if err := json.Unmarshal([]byte(metrics), &m); err != nil {
		t.Fatalf("ctr tasks metrics: %v:\n%s", err, metrics)
	}
	var v1 struct {
		Usage number `json:"usage"`
	}
	if json.Unmarshal(m.Memory.Usage, &v1) == nil {
		return uint64(v1.Usage)
	}
	var v2 number
	if err := json.Unmarshal(m.Memory.Usage, &v2); err != nil {
		t.Fatalf("ctr tasks metrics: %v:\n%s", err, metrics)
	}
	return uint64(v2)
}
