package integration

// What goes through a shim's hands while its program is replaced: no byte may be
// lost, twice or in another order.

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pipes are a client's FIFOs of one process.
type pipes struct{ stdin, stdout, stderr string }

// newPipes makes FIFOs in a folder, which is removed with the last of them.
func newPipes(dir string) (p pipes, err error) {
	if dir, err = os.MkdirTemp(dir, "io-"); err != nil {
		return p, err
	}
	p = pipes{filepath.Join(dir, "in"), filepath.Join(dir, "out"), filepath.Join(dir, "err")}
	for _, path := range []string{p.stdin, p.stdout, p.stderr} {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p pipes) remove() { os.RemoveAll(filepath.Dir(p.stdin)) }

// reader opens the client's end of an output, for which there is, or was, a
// writer.
func reader(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// writer opens the client's end of the input.
func writer(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
}

// execEcho runs an exec that writes its input to its output, and checks that and
// its exit.
func (m *member) execEcho(ctx context.Context, id string, text string, code int) (err error) {
	p, err := newPipes(m.Path())
	if err != nil {
		return err
	}
	defer p.remove()
	r := m.execRequest(id, "sh", "-c", fmt.Sprintf("cat; echo the end >&2; exit %d", code))
	r.Stdin, r.Stdout, r.Stderr = p.stdin, p.stdout, p.stderr
	if _, err := m.shim.Exec(ctx, r); err != nil {
		return err
	}
	if _, err := m.shim.Start(ctx, &task.StartRequest{ID: m.id, ExecID: id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	in, err := writer(p.stdin)
	if err != nil {
		return err
	}
	out, err := reader(p.stdout)
	if err != nil {
		return err
	}
	defer out.Close()
	errs, err := reader(p.stderr)
	if err != nil {
		return err
	}
	defer errs.Close()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(in, text)
		if _, closed := m.shim.CloseIO(ctx, &task.CloseIORequest{ID: m.id, ExecID: id, Stdin: true}); err == nil {
			err = closed
		}
		wrote <- errors.Join(err, in.Close())
	}()
	got, err := io.ReadAll(out)
	if err == nil && string(got) != text {
		err = fmt.Errorf("%d bytes came of %d", len(got), len(text))
	}
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if got, err := io.ReadAll(errs); err != nil || string(got) != "the end\n" {
		return fmt.Errorf("stderr is %q, %v", got, err)
	}
	w, err := m.shim.Wait(ctx, &task.WaitRequest{ID: m.id, ExecID: id})
	if err != nil || int(w.ExitStatus) != code {
		return fmt.Errorf("wait says %d, not %d: %v", w.GetExitStatus(), code, err)
	}
	_, err = m.shim.Delete(ctx, &task.DeleteRequest{ID: m.id, ExecID: id})
	return err
}

// upgradesUntil replaces the shim's program until done is closed, but few times
// at least, and returns how often.
func (m *member) upgradesUntil(done <-chan error, few int) (n int, err error) {
	m.t.Helper()
	for {
		select {
		case err = <-done:
			for ; n < few && err == nil; n++ {
				upgradeTo(m.t, m.shim, programs.Shim)
			}
			return n, err
		default:
			upgradeTo(m.t, m.shim, programs.Shim)
			n++
		}
	}
}

// TestUpgradesWhileMuchFlows passes 100 MB through an exec: in at one end, out at
// the other.
func TestUpgradesWhileMuchFlows(t *testing.T) {
	onlyOurs(t)
	size := int64(100 << 20)
	if testing.Short() || inMachine() {
		size = 10 << 20
	}
	l := newLone(t)
	m := l.member("flood").run()
	p, err := newPipes(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	r := m.execRequest("cat", "cat")
	r.Stdin, r.Stdout = p.stdin, p.stdout
	m.add(r)
	m.start("cat")
	in, err := writer(p.stdin)
	if err != nil {
		t.Fatal(err)
	}
	out, err := reader(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	sent, came := md5.New(), md5.New()
	done := make(chan error, 1)
	go func() {
		random := rand.NewChaCha8([32]byte{1})
		_, err := io.Copy(io.MultiWriter(in, sent), io.LimitReader(random, size))
		if _, closed := m.shim.CloseIO(m.ctx, &task.CloseIORequest{ID: m.id, ExecID: "cat", Stdin: true}); err == nil {
			err = closed
		}
		if err = errors.Join(err, in.Close()); err != nil {
			t.Errorf("send: %v", err)
		}
	}()
	go func() {
		n, err := io.Copy(came, out)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes came of %d", n, size)
		}
		done <- err
	}()
	n, err := m.upgradesUntil(done, 3)
	if err != nil {
		t.Error(err)
	}
	if string(sent.Sum(nil)) != string(came.Sum(nil)) {
		t.Error("what came is not what was sent")
	}
	t.Logf("%d MiB during %d upgrades", size>>20, n)
	if status := m.wait("cat"); status != 0 {
		t.Errorf("cat ended with %d", status)
	}
	m.delete("cat")
	p.remove()
	m.end()
}

// TestUpgradesDuringATerminalSession types into a shell, which keeps its state,
// and reads what it shows.
func TestUpgradesDuringATerminalSession(t *testing.T) {
	onlyOurs(t)
	l := newLone(t)
	m := l.member("session").run()
	p, err := newPipes(l.Path())
	if err != nil {
		t.Fatal(err)
	}
	r := m.execRequest("sh", "sh", "-c", `stty -echo; n=0; while read word; do n=$((n+1)); echo "<$n $word>"; done; exit 9`)
	r.Stdin, r.Stdout, r.Terminal = p.stdin, p.stdout, true
	m.add(r)
	m.start("sh")
	in, err := writer(p.stdin)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := reader(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lines, done := 300, make(chan error, 1)
	go func() {
		var shown strings.Builder
		buf := make([]byte, 4096)
		for i := 1; i <= lines; i++ {
			word := fmt.Sprintf("word-%d", i*i)
			if _, err := fmt.Fprintln(in, word); err != nil {
				done <- err
				return
			}
			want := fmt.Sprintf("<%d %s>", i, word)
			for !strings.Contains(shown.String(), want) {
				out.SetReadDeadline(time.Now().Add(soon))
				n, err := out.Read(buf)
				shown.Write(buf[:n])
				if err != nil {
					done <- fmt.Errorf("instead of %s there is %q: %w", want, tail(shown.String(), 3), err)
					return
				}
			}
		}
		if n := strings.Count(shown.String(), "<"); n != lines {
			done <- fmt.Errorf("%d lines were shown %d times", lines, n)
			return
		}
		done <- nil
	}()
	n, err := m.upgradesUntil(done, 3)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d lines during %d upgrades", lines, n)
	if _, err := m.shim.ResizePty(m.ctx, &task.ResizePtyRequest{ID: m.id, ExecID: "sh", Width: 100, Height: 30}); err != nil {
		t.Errorf("resize: %v", err)
	}
	if _, err := in.WriteString("\x04"); err != nil {
		t.Error(err)
	}
	if status := m.wait("sh"); status != 9 {
		t.Errorf("the shell ended with %d", status)
	}
	m.delete("sh")
	p.remove()
	m.end()
}

// TestUpgradesWithLogs has a container write numbered lines to a logger and a
// file for as long as upgrades go on: all of them arrive, in order. The logger
// must be the same process in the end.
func TestUpgradesWithLogs(t *testing.T) {
	onlyOurs(t)
	l := newLone(t)
	logger := l.Path("logger")
	script := fmt.Sprintf("#!/bin/sh\nprintf . >&5\nexec 5>&-\necho $$ >>%s.pids\necho a word >&2\nexec cat <&3 >>%s.log\n", logger, logger)
	if err := os.WriteFile(logger, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	file := l.Path("file.log")
	m := l.prepare("logs", args("sh", "-c", `trap 'echo the end; echo the end >&2; exit 5' TERM; n=0; while :; do echo $n; echo $n >&2; n=$((n+1)); [ $((n%50)) = 0 ] && sleep 0.01; done`))
	m.request.Stdout, m.request.Stderr = "binary-v2://"+logger, "file://"+file
	m.boot().run()
	for range upgrades(t, 20) {
		upgradeTo(t, m.shim, programs.Shim)
	}
	m.kill("", unix.SIGTERM)
	if status := m.wait(""); status != 5 {
		t.Errorf("the container ended with %d", status)
	}
	m.finish()
	for _, path := range []string{logger + ".log", file} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		for i, line := range lines[:len(lines)-1] {
			if line != fmt.Sprint(i) {
				t.Errorf("%s: line %d is %q", filepath.Base(path), i, line)
				break
			}
		}
		if last := lines[len(lines)-1]; last != "the end" {
			t.Errorf("%s ends with %q", filepath.Base(path), last)
		}
		t.Logf("%s: %d lines", filepath.Base(path), len(lines))
	}
	if pids, err := os.ReadFile(logger + ".pids"); err != nil || strings.Count(string(pids), "\n") != 1 {
		t.Errorf("loggers were %q, %v", pids, err)
	}
}

// TestUpgradesWithOutputThatNobodyReads upgrades shims that keep output for a
// client: what is kept is handed over, and comes once, whether the client begins
// to read before or after.
func TestUpgradesWithOutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	d := sharedDaemon(t)
	for _, terminal := range []bool{false, true} {
		end := "\n"
		if terminal {
			end = "\r\n"
		}
		b, client := unread(t, d, fmt.Sprintf("kept-%t", terminal), little, terminal, logsPolicy("spill", "64m"))
		shim, h := b.shim(), sha256.New()
		for range 3 {
			upgradeTo(t, shim, programs.Shim)
			if _, err := io.CopyN(h, client, 100_000); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.Copy(h, client); err != nil {
			t.Fatal(err)
		}
		if sum(h) != written(little, end) {
			t.Errorf("terminal=%t: it is not what was written", terminal)
		}
		b.delete()
		nothingLeftOf(t, d, b.ID())
	}
}

// TestUpgradesWithOutputThatIsDropped upgrades a shim that has dropped output, or is
// about to: each line comes once or is counted in the notice that stands in its
// place, and what is counted in all goes on.
func TestUpgradesWithOutputThatIsDropped(t *testing.T) {
	t.Parallel()
	onlyOurs(t)
	const bursts, lines, first = 3, 300_000, 1_000_001 // 8 bytes each, more than a pipe takes
	l := newLone(t)
	m := l.prepare("dropped", func(s *specs.Spec) {
		s.Annotations = map[string]string{"io.containerd.cleat.logs": "drop", "io.containerd.cleat.logs-limit": "64k"}
	}, args("sh", "-c", fmt.Sprintf(`n=%d; for i in $(seq %d); do seq $n $((n+%d)); n=$((n+%d)); read word; done; exit 5`, first, bursts, lines-1, lines)))
	in, out := newFeed(t), newFIFO(t)
	client, err := os.OpenFile(out.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	m.request.Stdin, m.request.Stdout = in.path, out.path
	m.boot().run()
	in.open()

	var seen loss
	var got bytes.Buffer
	for range bursts {
		eventually(t, func() error {
			if now := m.dropped(); now.Bytes <= seen.Bytes {
				return fmt.Errorf("%+v is dropped, as before", now)
			}
			return nil
		})
		for range 2 {
			before := m.dropped()
			upgradeTo(t, m.shim, programs.Shim)
			if seen = m.dropped(); seen.Bytes < before.Bytes || seen.Lines < before.Lines {
				t.Errorf("after an upgrade %+v is dropped, before it %+v", seen, before)
			}
			if _, err := io.CopyN(&got, client, 100_000); err != nil {
				t.Fatal(err)
			}
		}
		in.write("go on\n")
	}
	if status := m.wait(""); status != 5 {
		t.Errorf("the container ended with %d, want 5", status)
	}
	upgradeTo(t, m.shim, programs.Shim)
	if _, err := io.Copy(&got, client); err != nil {
		t.Fatal(err)
	}
	next, told := first, loss{}
	for line := range strings.Lines(got.String()) {
		var gone loss
		switch n, _ := fmt.Sscanf(line, "[cleat: %d bytes in %d lines of output dropped]\n", &gone.Bytes, &gone.Lines); {
		case n == 2 && gone.Bytes == 8*gone.Lines:
			told.Bytes, told.Lines = told.Bytes+gone.Bytes, told.Lines+gone.Lines
			next += gone.Lines
		case line == fmt.Sprintln(next):
			next++
		default:
			t.Fatalf("line %q comes where %d is next", line, next)
		}
	}
	if next != first+bursts*lines {
		t.Errorf("it ends before line %d", next)
	}
	if now := m.dropped(); now != told || told.Lines == 0 {
		t.Errorf("the notices say %+v, the state %+v", told, now)
	}
	m.finish()
}

// loss is what the state says of output that was dropped.
type loss struct{ Bytes, Lines int }

// dropped is what the shim has dropped of the container's stdout.
func (m *member) dropped() loss {
	m.t.Helper()
	var answer struct {
		State struct {
			Containers struct {
				Served []struct {
					Init struct {
						Streams struct{ Outputs []struct{ Dropped loss } }
					}
				}
			}
		}
	}
	if err := m.shim.Control(within(m.t, soon), "Inspect", nil, &answer); err != nil {
		m.t.Fatal(err)
	}
	containers := answer.State.Containers.Served
	if len(containers) != 1 || len(containers[0].Init.Streams.Outputs) == 0 {
		m.t.Fatalf("the state is %+v", answer)
	}
	return containers[0].Init.Streams.Outputs[0].Dropped
}
