package cri

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/tools"
)

// entry is one line of a container's log: "TIME STREAM TAG TEXT".
type entry struct {
	at      time.Time
	stream  string
	partial bool // the next of the stream goes on
	text    string
}

// readLog reads a log in the CRI's format.
func readLog(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for line := range bytes.Lines(text) {
		fields := strings.SplitN(string(line), " ", 4)
		if len(fields) != 4 || !strings.HasSuffix(fields[3], "\n") || fields[2] != "F" && fields[2] != "P" {
			return nil, fmt.Errorf("%s: not a line of a log: %q", path, line)
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		entries = append(entries, entry{at, fields[1], fields[2] == "P", strings.TrimSuffix(fields[3], "\n")})
	}
	return entries, nil
}

// texts are the lines of a stream, the last one even when it has no end.
func texts(entries []entry, stream string) []string {
	var list []string
	line := ""
	for _, e := range entries {
		if e.stream != stream {
			continue
		}
		line += e.text
		if !e.partial {
			list = append(list, line)
			line = ""
		}
	}
	if line != "" {
		list = append(list, line)
	}
	return list
}

// numbered says whether lines are "line 1" to "line n" in this order.
func numbered(lines []string, n int) error {
	for i, line := range lines {
		if want := fmt.Sprintf("line %d", i+1); line != want {
			return fmt.Errorf("line %d is %q", i+1, line)
		}
	}
	if len(lines) != n {
		return fmt.Errorf("there are %d lines, want %d", len(lines), n)
	}
	return nil
}

// lostByContainerd ends the test of a container that has ended if containerd has
// closed its end of the container's streams before it had read all. That is what
// 1.6 does when it deletes a task, and says then that it could not read on. To that
// containerd cleat tells the exit when all is read.
func lostByContainerd(t *testing.T, c *container) {
	t.Helper()
	if !programs.Release.Older("1.7") || runtimeName != stockRuntime {
		return
	}
	for line := range strings.Lines(c.p.d.Log()) {
		if strings.Contains(line, c.id) && strings.Contains(line, "Failed to pipe std") && strings.Contains(line, "file already closed") {
			t.Skip(tools.Sometimes + "read the streams of a container to their end: it says itself that it has closed them before (Failed to pipe … file already closed)")
		}
	}
}

// The log has all of both streams, lines that are too long in parts, and what
// has no end of line.
func TestLogHasAllThatIsWritten(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "log")
	c := p.run("writer", []string{"sh", "-c", `
		for i in $(seq 5000); do echo line $i; done
		for i in $(seq 100); do echo line $i >&2; done
		head -c 40000 /dev/zero | tr '\0' x; echo
		printf 'no end'`})
	if status := c.exited(); status.ExitCode != 0 || status.Reason != "Completed" {
		t.Errorf("the container ended with %d, %s", status.ExitCode, status.Reason)
	}
	var entries []entry
	lostByContainerd(t, c)
	eventually(t, func() (err error) { // the log is written after the exit is known
		entries, err = readLog(c.log())
		if err == nil && len(texts(entries, "stdout")) < 5002 {
			err = fmt.Errorf("the log has %d entries", len(entries))
		}
		return err
	})
	out := texts(entries, "stdout")
	if err := numbered(out[:5000], 5000); err != nil {
		t.Error(err)
	}
	if long := out[5000]; long != strings.Repeat("x", 40000) {
		t.Errorf("the long line has %d bytes", len(long))
	}
	if out[5001] != "no end" {
		t.Errorf("the last line is %q", out[5001])
	}
	if err := numbered(texts(entries, "stderr"), 100); err != nil {
		t.Errorf("stderr: %v", err)
	}
	p.end()
}

// Nothing is lost when the log is rotated while the container writes.
func TestLogIsRotated(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "log-rotated")
	const lines, rotations = 30000, 3
	c := p.run("writer", []string{"sh", "-c", fmt.Sprintf("read x; for i in $(seq %d); do echo line $i; done", lines)},
		func(c *cri.ContainerConfig) { c.Stdin = true })
	began := make(chan error, 1)
	go func() {
		began <- p.attach(c, remotecommand.StreamOptions{Stdin: strings.NewReader("go\n"), Stdout: io.Discard})
	}() // ends with the container
	var files []string
	for i := range rotations {
		eventually(t, func() error {
			info, err := os.Stat(c.log())
			if err == nil && info.Size() == 0 {
				err = fmt.Errorf("%s is empty", c.log())
			}
			return err
		})
		old := fmt.Sprintf("%s.%d", c.log(), i)
		if err := os.Rename(c.log(), old); err != nil {
			t.Fatal(err)
		}
		files = append(files, old)
		if _, err := p.runtime().ReopenContainerLog(p.ctx, &cri.ReopenContainerLogRequest{ContainerId: c.id}); err != nil {
			if c.status().State == cri.ContainerState_CONTAINER_RUNNING {
				t.Fatalf("reopen the log: %v", err)
			}
			break // it has written all
		}
	}
	files = append(files, c.log())
	c.exited()
	if err := <-began; err != nil {
		t.Errorf("attach: %v", err)
	}
	if len(files) < 3 {
		t.Errorf("the log was rotated %d times only before the container had ended", len(files)-1)
	}
	lostByContainerd(t, c)
	eventually(t, func() error {
		var all []entry // one line may go on in the next file
		for _, file := range files {
			entries, err := readLog(file)
			if err != nil {
				return err
			}
			all = append(all, entries...)
		}
		return numbered(texts(all, "stdout"), lines)
	})
	p.end()
}
