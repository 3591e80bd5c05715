package walk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/terminal"
)

// ctr uses the ctr of the containerd's own release. It gives a process that
// stays no input but what is in the container, so the words for it come through
// a FIFO in a folder that is mounted there; its output goes to a file.
type ctr struct {
	d       *daemon.Daemon
	runtime string
	t       *testing.T
	events  *ears
}

func newCtr(d *daemon.Daemon, runtime string) user { return &ctr{d: d, runtime: runtime} }

func (c *ctr) to(t *testing.T) { c.t = t }

func (c *ctr) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTime)
	c.t.Cleanup(cancel)
	return c.d.Ctr(ctx, args...)
}

// finish runs a command to its end.
func (c *ctr) finish(cmd *exec.Cmd) (stdout, stderr string, status int) {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		c.t.Fatalf("%s: %v\n%s%s", cmd, err, &out, &errs)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// do runs a command, which must succeed.
func (c *ctr) do(args ...string) string {
	c.t.Helper()
	stdout, stderr, status := c.finish(c.command(args...))
	if status != 0 {
		c.t.Fatalf("ctr %s ended with %d:\n%s%s", strings.Join(args, " "), status, stdout, stderr)
	}
	return stdout
}

func (c *ctr) pull(ref string) { c.do("images", "pull", "--plain-http", ref) }

func (c *ctr) run(id, input string, args ...string) (output, errors string, status int) {
	c.t.Helper()
	cmd := c.command(append([]string{"run", "--rm", "--runtime", c.runtime, image.Name, id}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	return c.finish(cmd)
}

// watch lets another ctr tell events, until containerd ends. Nobody tells when
// it has begun to, so something is done again and again until it tells of that.
func (c *ctr) watch() {
	c.t.Helper()
	c.events = &ears{}
	cmd := c.d.Ctr(context.Background(), "events")
	cmd.Stdout = c.events
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go cmd.Wait() // ends with containerd, or with the place
	for n := 0; ; n++ {
		if text, _ := c.events.heard(); text != "" {
			return
		}
		if c.t.Context().Err() != nil {
			c.t.Fatal("ctr events tells nothing")
		}
		c.do("namespaces", "label", c.d.Namespace, fmt.Sprintf("walk=%d", n))
	}
}

func (c *ctr) told(id string) (topics []string) {
	text, _ := c.events.heard()
	for line := range strings.Lines(text) {
		if _, after, ok := strings.Cut(line, " /tasks/"); ok && strings.Contains(line, strconv.Quote(id)) {
			topics = append(topics, "/tasks/"+strings.Fields(after)[0])
		}
	}
	return topics
}

// words makes the FIFO through which somebody talks to a process.
func (c *ctr) words(name string) *talk {
	c.t.Helper()
	dir := c.d.Path("words")
	fifo := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		c.t.Fatal(err)
	}
	in, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	return &talk{in: in, heard: written(c.d.Path(name + ".log")), end: func() { os.Remove(fifo) }}
}

func (c *ctr) listening(name string, args []string) []string {
	return append([]string{"sh", "-c", `exec "$@" </words/` + name, "sh"}, args...)
}

func (c *ctr) start(id string, annotations map[string]string, args ...string) *talk {
	c.t.Helper()
	talk := c.words(id)
	all := []string{"run", "-d", "--runtime", c.runtime, "--log-uri", "file://" + c.d.Path(id+".log"),
		"--mount", "type=bind,src=" + c.d.Path("words") + ",dst=/words,options=rbind:rw"}
	for key, value := range annotations {
		all = append(all, "--annotation", key+"="+value)
	}
	c.do(append(append(all, image.Name, id), c.listening(id, args)...)...)
	return talk
}

func (c *ctr) talk(id, exec string, args ...string) *talk {
	c.t.Helper()
	talk := c.words(exec)
	c.do(append([]string{"tasks", "exec", "-d", "--log-uri", "file://" + c.d.Path(exec+".log"), "--exec-id", exec, id}, c.listening(exec, args)...)...)
	return talk
}

func (c *ctr) exec(id, exec string, args ...string) (output string, status int) {
	output, _, status = c.finish(c.command(append([]string{"tasks", "exec", "--exec-id", exec, id}, args...)...))
	return output, status
}

func (c *ctr) terminal(id, exec string, rows, columns int, text string) (shown string, status int) {
	c.t.Helper()
	tty := terminal.Start(c.t, c.command("tasks", "exec", "-t", "--exec-id", exec, id, "sh"), uint16(rows), uint16(columns))
	tty.Write(text)
	status = tty.End()
	return tty.Shown(), status
}

func (c *ctr) pids(id string) (pids []int) {
	c.t.Helper()
	for line := range strings.Lines(c.do("tasks", "ps", id)) {
		if field := strings.Fields(line); len(field) > 0 {
			if pid, err := strconv.Atoi(field[0]); err == nil { // not the heading
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// memory is in the statistics of cgroup v1 or in those of v2.
func (c *ctr) memory(id string) uint64 {
	c.t.Helper()
	text := c.do("tasks", "metrics", "--format", "json", id)
	var m struct {
		Memory struct {
			Usage json.RawMessage `json:"usage"`
		} `json:"memory"`
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		c.t.Fatalf("ctr tasks metrics: %v:\n%s", err, text)
	}
	var v1 struct {
		Usage uint64 `json:"usage"`
	}
	var v2 uint64
	if json.Unmarshal(m.Memory.Usage, &v1) != nil {
		if err := json.Unmarshal(m.Memory.Usage, &v2); err != nil {
			c.t.Fatalf("ctr tasks metrics: %v:\n%s", err, text)
		}
		return v2
	}
	return v1.Usage
}

func (c *ctr) pause(id string)  { c.do("tasks", "pause", id) }
func (c *ctr) resume(id string) { c.do("tasks", "resume", id) }

func (c *ctr) status(id string) (pid int, status string) {
	c.t.Helper()
	for line := range strings.Lines(c.do("tasks", "ls")) {
		field := strings.Fields(line) // TASK PID STATUS
		if len(field) == 3 && field[0] == id {
			pid, err := strconv.Atoi(field[1])
			if err != nil {
				c.t.Fatalf("ctr tasks ls: %q: %v", line, err)
			}
			return pid, strings.ToLower(field[2])
		}
	}
	return 0, "not there"
}

func (c *ctr) kill(id string, signal syscall.Signal) {
	c.do("tasks", "kill", "-s", unix.SignalName(signal), id)
}

// delete reads the status from a warning, which ctr writes when it is not 0.
func (c *ctr) delete(id string) int {
	c.t.Helper()
	stdout, stderr, code := c.finish(c.command("tasks", "delete", id))
	_, after, told := strings.Cut(stderr, "non-zero exit code ")
	status := code // as ctr of 1.6 says it
	if told {
		number := after[:len(after)-len(strings.TrimLeft(after, "0123456789"))]
		var err error
		if status, err = strconv.Atoi(number); err != nil {
			c.t.Fatalf("ctr tasks delete wrote:\n%s", stderr)
		}
	}
	if code != 0 && status == 0 {
		c.t.Fatalf("ctr tasks delete ended with %d:\n%s%s", code, stdout, stderr)
	}
	c.do("containers", "rm", id)
	return status
}
