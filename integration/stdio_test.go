package integration

// Standard IO as a client of containerd sees it.

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/cleatrun/cleat/integration/daemon"
)

// TestLargeOutputIsComplete writes several MiB to both streams and ends at
// once: as a container and as an exec.
func TestLargeOutputIsComplete(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	program, err := os.ReadFile(programs.Busybox)
	if err != nil {
		t.Fatal(err)
	}
	// The image's busybox is the content, as often as it takes.
	times := 1 + fewer(6<<20)/len(program)
	want := fmt.Sprintf("%x", sha256.Sum256(bytes.Repeat(program, times)))
	command := []string{"sh", "-c", fmt.Sprintf("f=`yes /bin/busybox | head -n %d`; cat $f & cat $f >&2; wait", times)}

	check := func(t *testing.T, b *box, run func(cio.Creator) uint32) {
		t.Helper()
		stdout, stderr := sha256.New(), sha256.New()
		if code := run(b.streams(nil, stdout, stderr)); code != 0 {
			t.Errorf("ended with %d", code)
		}
		for name, sum := range map[string][]byte{"stdout": stdout.Sum(nil), "stderr": stderr.Sum(nil)} {
			if got := fmt.Sprintf("%x", sum); got != want {
				t.Errorf("%s has the hash %s, want %s", name, got, want)
			}
		}
	}
	t.Run("container", func(t *testing.T) {
		b := newBox(t, d, "large", command)
		check(t, b, func(creator cio.Creator) uint32 {
			b.start(creator)
			b.wait(b.task)()
			return b.delete()
		})
		nothingLeftOf(t, d, b.ID())
	})
	t.Run("exec", func(t *testing.T) {
		b := newBox(t, d, "large-exec", forever).start(nil)
		for range 2 {
			check(t, b, func(creator cio.Creator) uint32 {
				p := b.exec("large", creator, command...)
				b.wait(p)()
				return b.deleteExec(p)
			})
		}
		b.end()
	})
}

// TestLargeInputIsComplete sends several MiB to a process that then says what
// it got.
func TestLargeInputIsComplete(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	content := strings.Repeat("0123456789abcde\n", 5<<16)
	want := fmt.Sprintf("%x  -\n", sha256.Sum256([]byte(content)))
	in, out := newInput(content), new(bytes.Buffer)
	b := newBox(t, d, "input", []string{"sha256sum"})
	b.start(b.streams(in, out, io.Discard))
	ended := b.wait(b.task)
	if err := in.closeAtEnd(b.ctx, b.task); err != nil {
		t.Fatal(err)
	}
	if code := ended(); code != 0 {
		t.Errorf("ended with %d", code)
	}
	b.delete()
	if out.String() != want {
		t.Errorf("the process got %q, want %q", out, want)
	}
	nothingLeftOf(t, d, b.ID())
}

// TestClientGoesAwayAndComesBack kills the client that is attached. The
// process's input must not end by that, nor its output be lost; the next client
// goes on, and only CloseIO ends the input.
func TestClientGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	const id = "comes-back"
	ctr(t, d, run([]string{"-d"}, id, "sh", "-c", `while read line; do echo "got $line"; done; exit 8`)...)
	for _, word := range []string{"one", "two"} {
		client := attach(t, d, id)
		client.say(word)
		client.expect("got " + word)
		client.leave()
	}
	c, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	ctx := d.Context(bounded(t))
	container, err := c.LoadContainer(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := task.Status(ctx); err != nil || status.Status != containerd.Running {
		t.Fatalf("after its clients have gone the task is %+v, %v", status, err)
	}
	if err := task.CloseIO(ctx, containerd.WithStdinCloser); err != nil {
		t.Fatal(err)
	}
	endDetached(t, d, id, 8)
}

// client is `ctr tasks attach` with pipes.
type client struct {
	*tap
	in    io.Writer
	leave func() // what a client does that crashes
}

func attach(t *testing.T, d *daemon.Daemon, id string) *client {
	t.Helper()
	cmd := d.Ctr(bounded(t), "tasks", "attach", id)
	out := &tap{t: t, end: make(chan struct{}), grown: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &client{tap: out, in: in, leave: func() {
		cmd.Process.Kill()
		cmd.Wait()
	}}
}

func (c *client) say(word string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, word+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// TestTerminalHasTheSizeThatWasAskedFor resizes a terminal before the start,
// which the program must find from the first moment, and after it, which the
// program is told by SIGWINCH.
func TestTerminalHasTheSizeThatWasAskedFor(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	out := newTap(t)
	const script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.01; done"
	check := func(p containerd.Process, b *box) {
		t.Helper()
		if err := p.Resize(b.ctx, 101, 31); err != nil {
			t.Fatal(err)
		}
		ended := b.wait(p)
		if err := p.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		out.expect("31 101\r\nready")
		if err := p.Resize(b.ctx, 102, 32); err != nil {
			t.Fatal(err)
		}
		out.expect("32 102\r\n")
		if code := ended(); code != 5 {
			t.Errorf("ended with %d, want 5", code)
		}
	}
	b := newBox(t, d, "sized", []string{"sh", "-c", script}, oci.WithTTY)
	b.create(b.streams(nil, out, nil, cio.WithTerminal))
	check(b.task, b)
	b.delete()

	// No terminal: there is nothing to resize, which is no error.
	plain := newBox(t, d, "not-sized", forever).start(nil)
	if err := plain.task.Resize(plain.ctx, 80, 24); err != nil {
		t.Errorf("to resize a process without a terminal gives %v", err)
	}
	plain.end()
	nothingLeftOf(t, d, b.ID())
}

// TestLargeTerminalOutputIsComplete ends right after it has written a lot to
// its terminal, as a container and as an exec.
func TestLargeTerminalOutputIsComplete(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	want := strings.ReplaceAll(numbers(20000), "\n", "\r\n")
	command := []string{"seq", "1", "20000"}
	for i := range fewer(3) {
		var out bytes.Buffer
		b := newBox(t, d, fmt.Sprint("terminal-", i), command, oci.WithTTY)
		b.start(b.streams(nil, &out, nil, cio.WithTerminal))
		b.wait(b.task)()
		b.delete()
		same(t, b.ID(), out.String(), want)
		nothingLeftOf(t, d, b.ID())
	}
	b := newBox(t, d, "terminal-exec", forever).start(nil)
	for i := range fewer(5) {
		var out bytes.Buffer
		id := fmt.Sprint("exec-", i)
		spec, err := b.Spec(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		process := *spec.Process
		process.Args, process.Terminal = command, true
		p, err := b.task.Exec(b.ctx, id, &process, b.streams(nil, &out, nil, cio.WithTerminal))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.wait(p)()
		b.deleteExec(p)
		same(t, id, out.String(), want)
	}
	b.end()
}
