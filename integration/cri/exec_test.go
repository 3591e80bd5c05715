package cri

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a kubelet's probe needs: status, both streams, and an end in time.
func TestExecSync(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "exec-sync")
	c := p.run("main", forever)
	answer, err := c.exec(0, "sh", "-c", "echo out; echo err >&2; exit 7")
	if err != nil || answer.ExitCode != 7 || string(answer.Stdout) != "out\n" || string(answer.Stderr) != "err\n" {
		t.Errorf("answered %v, %v", answer, err)
	}
	if answer, err := c.exec(0, "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v, %v", answer, err)
	}
	// containerd waits for the output's end, too, so this has no children.
	if answer, err := c.exec(1, "sleep", "54321"); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("an exec that takes too long: %v, %v", answer, err)
	}
	eventually(t, func() error {
		for _, process := range strings.Split(c.output("ps", "-o", "args"), "\n") {
			if process == "sleep 54321" {
				return fmt.Errorf("the exec that took too long is there")
			}
		}
		return nil
	})
	if status := c.status(); status.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container is %s", status.State)
	}
	p.end()
}

// Many execs at once, each with its own output and status, as probes of many
// containers come.
func TestExecSyncsAtOnce(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), plain, "exec-many")
	containers := []*container{p.run("one", forever), p.run("two", forever)}
	var running sync.WaitGroup
	for i := range 24 {
		running.Go(func() {
			answer, err := containers[i%2].exec(60, "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			if err != nil || answer.ExitCode != int32(i) || string(answer.Stdout) != fmt.Sprintln(i) {
				t.Errorf("exec %d answered %v, %v", i, answer, err)
			}
		})
	}
	running.Wait()
	p.end()
}

// kubectl exec: input, both outputs and the exit status.
func TestExecWithStreams(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "exec-streams")
	c := p.run("main", forever)
	input := strings.Repeat("0123456789abcdef", 1<<14) // more than a pipe holds
	var stdout, stderr bytes.Buffer
	err := p.streamExec(c, remotecommand.StreamOptions{
		Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr,
	}, "sh", "-c", "cat; echo problem >&2; exit 3")
	if ended := (exec.CodeExitError{}); !errors.As(err, &ended) || ended.Code != 3 {
		t.Errorf("the exec ended with %v, want status 3", err)
	}
	if stdout.String() != input {
		t.Errorf("of %d bytes came back %d", len(input), stdout.Len())
	}
	if stderr.String() != "problem\n" {
		t.Errorf("stderr is %q", stderr.String())
	}
	p.end()
}

// screen is a terminal of a client: what comes, and the sizes it takes.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	sizes chan remotecommand.TerminalSize
}

func newScreen() *screen { return &screen{sizes: make(chan remotecommand.TerminalSize, 2)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// Next is the next size (remotecommand.TerminalSizeQueue).
func (s *screen) Next() *remotecommand.TerminalSize {
	size, ok := <-s.sizes
	if !ok {
		return nil
	}
	return &size
}

func (s *screen) shows(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.Contains(s.text.String(), text) {
		return fmt.Errorf("the screen does not show %q but %q", text, s.text.String())
	}
	return nil
}

// keyboard is an input that is typed line by line and never ends by itself.
type keyboard chan string

func (k keyboard) Read(p []byte) (int, error) { return copy(p, <-k), nil }

// types a line, for which nobody has to wait: who reads it may be gone.
func (k keyboard) types(line string) {
	select {
	case k <- line:
	default:
	}
}

// resizing tells the size of its terminal for each line that it reads.
var resizing = []string{"sh", "-c", "while read x; do [ $x = end ] && exit 4; echo size $(stty size); done"}

// resized types and resizes a terminal that runs the program resizing.
func resized(t *testing.T, k keyboard, s *screen) {
	t.Helper()
	for _, size := range []remotecommand.TerminalSize{{Width: 80, Height: 24}, {Width: 132, Height: 50}} {
		s.sizes <- size
		eventually(t, func() error { // nobody tells when the size has arrived
			k.types("again\n")
			return s.shows(fmt.Sprintf("size %d %d", size.Height, size.Width))
		})
	}
	close(s.sizes)
	k.types("end\n")
}

// kubectl exec -it.
func TestExecWithATerminal(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "exec-tty")
	c := p.run("main", forever)
	k, s := make(keyboard, 1), newScreen()
	ended := make(chan error, 1)
	go func() { // ends with the exec
		ended <- p.streamExec(c, remotecommand.StreamOptions{Stdin: k, Stdout: s, Tty: true, TerminalSizeQueue: s}, resizing...)
	}()
	resized(t, k, s)
	err := <-ended
	if end := (exec.CodeExitError{}); !errors.As(err, &end) || end.Code != 4 {
		t.Errorf("the exec ended with %v, want status 4", err)
	}
	p.end()
}
