package integration

// The traps of standard IO.

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pending is how much output waits in a FIFO. It opens the FIFO and closes it,
// as a client does that comes and goes.
func pending(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ) // FIONREAD
}

// numbers is what `seq 1 n` writes.
func numbers(n int) string {
	var text strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintln(&text, i)
	}
	return text.String()
}

// same compares outputs too long to be shown.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes instead of %d, the first difference at %d", what, len(got), len(want), at)
}

// The client opens its FIFO when the process has written already, goes away and
// comes back; the process notices nothing and nothing is lost. Stock fails:
// Create waits for the client.
func TestTrap27OutputWaitsForAClientThatComesLateAndAgain(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap27", args("sh", "-c", "trap 'echo late; exit 0' TERM; echo early; sleep 1000 & wait"))
	out := newFIFO(t)
	m.request.Stdout, m.request.Stderr = out.path, newTap(t).path
	m.create()
	m.start("")
	early := func() error {
		n, err := pending(out.path)
		if err == nil && n < len("early\n") {
			err = fmt.Errorf("%d bytes wait in the FIFO", n)
		}
		return err
	}
	eventually(t, early)
	eventually(t, early) // the client that has looked and gone has taken nothing
	out.read()
	out.expect("early\n")
	m.ask()
	if status := m.wait(""); status != 0 {
		t.Errorf("the container ended with %d, want 0", status)
	}
	if text := out.all(); text != "early\nlate\n" {
		t.Errorf("the output is %q", text)
	}
	m.finish()
}

// A client that is slow: it holds its FIFO open, and reads when the process has
// ended and the shim has been told to delete it. What was written still comes.
func TestTrap27OutputOfADeletedProcessIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap27-slow", args("sh", "-c", "seq 1 10000")) // 49 kB, less than a pipe holds
	init, exec := newFIFO(t), newFIFO(t)
	want := numbers(10000)
	reading := func(p *tap) *os.File {
		f, err := os.OpenFile(p.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	slow := l.member("trap27-exec", args(forever...)).run()
	r := slow.execRequest("slow", "seq", "1", "10000")
	r.Stdout, r.Stderr = exec.path, newTap(t).path
	slow.add(r)
	fromExec := reading(exec)
	slow.start("slow")
	slow.wait("slow")
	deleted := make(chan error, 1)
	go func() {
		_, err := slow.tryDelete(l.ctx, "slow")
		deleted <- err
	}()
	got, err := readAll(fromExec)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "an exec's output", got, want)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	slow.end()

	m.request.Stdout, m.request.Stderr = init.path, newTap(t).path
	fromInit := reading(init)
	m.run()
	m.wait("")
	go func() {
		_, err := m.tryDelete(l.ctx, "")
		deleted <- err
	}()
	if got, err = readAll(fromInit); err != nil {
		t.Fatal(err)
	}
	same(t, "a container's output", got, want)
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	m.shutdown()
	m.clean()
}

// readAll reads a non-blocking FIFO to its end.
func readAll(f *os.File) (string, error) {
	f.SetReadDeadline(time.Now().Add(soon))
	text, err := io.ReadAll(f)
	return string(text), err
}

// A child of an exec holds its output open when the exec has ended and is
// deleted: that ends within the drain limit, and what was written before comes.
// Stock fails: Delete takes ten seconds.
func TestTrap28BackgroundChildOfAnExecHoldsItsOutput(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap28").run()
	out := newTap(t)
	r := m.execRequest("parent", "sh", "-c", "seq 1 20000; sleep 1000 & exit 0")
	r.Stdout, r.Stderr = out.path, newTap(t).path
	m.add(r)
	m.start("parent")
	m.wait("parent")
	began := time.Now()
	deleted := make(chan error, 1)
	go func() {
		_, err := m.tryDelete(l.ctx, "parent")
		deleted <- err
	}()
	// Meanwhile the container can be asked and changed.
	m.is("", tasktypes.Status_RUNNING)
	if status := func() int { m.exec("other", "true"); return m.wait("other") }(); status != 0 {
		t.Errorf("another exec ended with %d", status)
	}
	m.delete("other")
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	const limit = 2 * time.Second
	if took := time.Since(began); took > 3*limit {
		t.Errorf("Delete took %s, which is far more than %s", took, limit)
	}
	same(t, "what was written before", out.all(), numbers(20000))
	m.end()
}

// While nobody reads, the container waits, and goes on when somebody does; also
// when the one who read has gone in the middle. Stock fails: Create waits for
// the first.
func TestTrap29OutputGoesOnWithTheNextReader(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	const n = 300000 // 2 MB, more than any pipe holds
	want := numbers(n)
	m := l.member("trap29", args("sh", "-c", fmt.Sprintf("seq 1 %d", n)))
	init := newFIFO(t)
	m.request.Stdout, m.request.Stderr = init.path, newTap(t).path
	m.create()
	m.start("")
	host := l.member("trap29-exec").run()
	exec := newFIFO(t)
	r := host.execRequest("e", "seq", "1", fmt.Sprint(n))
	r.Stdout, r.Stderr = exec.path, newTap(t).path
	host.add(r)
	host.start("e")
	for name, p := range map[string]*tap{"container": init, "exec": exec} {
		first, err := os.OpenFile(p.path, os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		first.SetReadDeadline(time.Now().Add(soon))
		head := make([]byte, 100<<10)
		if _, err := io.ReadFull(first, head); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		first.Close()
		p.read()
		same(t, name, string(head)+p.all(), want)
	}
	if status := m.wait(""); status != 0 {
		t.Errorf("the container ended with %d", status)
	}
	if status := host.wait("e"); status != 0 {
		t.Errorf("the exec ended with %d", status)
	}
	m.finish()
	host.delete("e")
	host.end()
}

// A client that detaches does not end the input; CloseIO does.
func TestTrap30InputEndsByCloseIOAndNotByDetaching(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	in, out := newFIFO(t), newTap(t)
	m := l.member("trap30", args("cat"))
	m.request.Stdin, m.request.Stdout, m.request.Stderr = in.path, out.path, newTap(t).path
	m.create()
	m.start("")
	for _, line := range []string{"one\n", "two\n"} {
		client, err := os.OpenFile(in.path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.WriteString(line); err != nil {
			t.Fatal(err)
		}
		client.Close()
		out.expect(line)
	}
	m.is("", tasktypes.Status_RUNNING)
	if _, err := m.shim.CloseIO(l.ctx, &task.CloseIORequest{ID: m.id, Stdin: true}); err != nil {
		t.Fatal(err)
	}
	if status := m.wait(""); status != 0 {
		t.Errorf("cat ended with %d", status)
	}
	if text := out.all(); text != "one\ntwo\n" {
		t.Errorf("the output is %q", text)
	}
	m.finish()
}

// What is asked before there is an input is done when there is one. Stock
// fails: the exec waits for its input for ever.
func TestTrap30CloseIOBeforeTheStartIsRemembered(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap30-early").run()
	for _, client := range []bool{true, false} {
		id := fmt.Sprint("client-", client)
		in, out := newFIFO(t), newTap(t)
		r := m.execRequest(id, "cat")
		r.Stdin, r.Stdout, r.Stderr = in.path, out.path, newTap(t).path
		m.add(r)
		if _, err := m.shim.CloseIO(l.ctx, &task.CloseIORequest{ID: m.id, ExecID: id, Stdin: true}); err != nil {
			t.Fatal(err)
		}
		want, written := "", make(chan error, 1)
		if client {
			want = "word\n"
			go func() { written <- os.WriteFile(in.path, []byte(want), 0) }() // waits for the shim to open it
		} else {
			written <- nil
		}
		m.start(id)
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		if status := m.wait(id); status != 0 {
			t.Errorf("%s: cat ended with %d", id, status)
		}
		if text := out.all(); text != want {
			t.Errorf("%s: the output is %q, want %q", id, text, want)
		}
		m.delete(id)
	}
	m.end()
}

// What a process writes to its terminal before it ends is there to the last
// byte.
func TestTrap31TerminalIsDrainedWhenItsProcessEnds(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap31").run()
	want := strings.ReplaceAll(numbers(10000), "\n", "\r\n")
	for i := range rounds(t, 25, 3*time.Second) {
		out := newTap(t)
		r := m.execRequest(fmt.Sprint("tty", i), "seq", "1", "10000")
		r.Terminal, r.Stdout = true, out.path
		m.add(r)
		m.start(r.ExecID)
		m.wait(r.ExecID)
		same(t, r.ExecID, out.all(), want)
		m.delete(r.ExecID)
	}
	m.end()
}

// A process that has closed its terminal gives an error for every read of it.
// To try again and again would take a processor for as long as it lives.
func TestTrap31TerminalThatIsHungUpCostsNothing(t *testing.T) {
	l := newLone(t)
	m := l.member("trap31-idle").run()
	out := newTap(t)
	r := m.execRequest("silent", "sh", "-c", "echo going; exec sleep 1000 </dev/null >/dev/null 2>&1")
	r.Terminal, r.Stdout = true, out.path
	m.add(r)
	pid := m.start("silent")
	out.expect("going")
	eventually(t, func() error {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(name) != "sleep\n" {
			return fmt.Errorf("the process is %q: %v", name, err)
		}
		return nil
	})
	shim := m.shimPID()
	before := cpuTime(t, shim)
	const span = 500 * time.Millisecond
	<-time.After(span) // the measured time itself
	if used := cpuTime(t, shim) - before; used > span/5 {
		t.Errorf("the idle shim used %s of processor time in %s", used, span)
	}
	m.kill("silent", unix.SIGKILL)
	m.wait("silent")
	m.delete("silent")
	m.end()
}

// Starts that fail, at whatever step, leave no descriptor open. Stock fails: an
// input that is not there holds the shim up for half a minute.
func TestTrap32FailedStartsLeaveNoDescriptors(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap32", group("trap32")).run()
	shim := m.shimPID()
	attempt := func(i int) {
		out := newFIFO(t)
		requests := []*task.ExecProcessRequest{
			m.execRequest(fmt.Sprint("tty", i), "/no/such/program"),
			m.execRequest(fmt.Sprint("pipe", i), "/no/such/program"),
			m.execRequest(fmt.Sprint("fifo", i), "true"),
			m.execRequest(fmt.Sprint("ttyfifo", i), "true"),
			m.execRequest(fmt.Sprint("stdin", i), "true"),
		}
		requests[0].Terminal, requests[0].Stdout = true, out.path
		requests[1].Stdin, requests[1].Stdout, requests[1].Stderr = out.path, out.path, out.path
		requests[2].Stdout, requests[2].Stderr = out.path, "/no/such/fifo"
		requests[3].Terminal, requests[3].Stdin, requests[3].Stdout = true, "/no/such/fifo", out.path
		requests[4].Stdin, requests[4].Stdout = "/no/such/fifo", out.path
		for _, r := range requests {
			m.add(r)
			if _, err := m.tryStart(r.ExecID); err == nil {
				t.Errorf("%s is started", r.ExecID)
				m.wait(r.ExecID)
			}
			m.delete(r.ExecID)
		}
		bad := l.prepare(fmt.Sprint("trap32-", i), group("trap32"), args("/no/such/program"), func(s *specs.Spec) { s.Process.Terminal = true })
		bad.boot()
		bad.request.Terminal, bad.request.Stdout = true, out.path
		if _, err := bad.tryCreate(l.ctx); err == nil {
			t.Errorf("%s is created", bad.id)
		}
		bad.shutdown()
		bad.clean()
	}
	attempt(0) // whatever is opened once only
	before := descriptors(t, shim)
	for i := range rounds(t, 8, 3*time.Second) {
		attempt(i + 1)
	}
	// The connection for events closes when it was not used for a while, and
	// the one of a test's client when the shim has noticed.
	eventually(t, func() error {
		if after := descriptors(t, shim); len(after) > len(before) {
			return fmt.Errorf("descriptors before:\n%s\nand after:\n%s", lines(before), lines(after))
		}
		return nil
	})
	m.end()
}

// Bytes that the kernel moves in pieces of any size are all there, in both
// directions.
func TestTrap33BytesPassInPiecesOfAnySize(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	m := l.member("trap33").run()
	in, out := newFIFO(t), newTap(t)
	r := m.execRequest("through", "cat")
	r.Stdin, r.Stdout, r.Stderr = in.path, out.path, newTap(t).path
	m.add(r)
	text := numbers(400000)
	sent := make(chan error, 1)
	go func() { // ends with the exec, which has the FIFO open
		client, err := os.OpenFile(in.path, os.O_WRONLY, 0)
		if err == nil {
			for rest, size := text, 1; err == nil && rest != ""; size = size*3%70001 + 1 {
				size = min(size, len(rest))
				_, err = client.WriteString(rest[:size])
				rest = rest[size:]
			}
			err = errors.Join(err, client.Close())
		}
		sent <- err
	}()
	m.start("through")
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if _, err := m.shim.CloseIO(l.ctx, &task.CloseIORequest{ID: m.id, ExecID: "through", Stdin: true}); err != nil {
		t.Fatal(err)
	}
	if status := m.wait("through"); status != 0 {
		t.Errorf("cat ended with %d", status)
	}
	got := out.all()
	if sha256.Sum256([]byte(got)) != sha256.Sum256([]byte(text)) {
		same(t, "what went through", got, text)
	}
	m.delete("through")
	m.end()
}

// logger makes a logging program of a shell script, which gets stdout as 3,
// stderr as 4 and tells that it is ready on 5. Its log is the file $0.log.
func logger(t *testing.T, body string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "logger")
	text := fmt.Sprintf("#!%[1]s sh\nbusybox=%[1]s\n%[2]s\n", programs.Busybox, body)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A logger that never gets ready is an error within a limit, and is not left.
// One that does not end with the output is not waited for in Delete, and ended.
// Stock fails: Create waits for ever, and the logger stays.
func TestTrap34LoggerThatIsNotReadyOrDoesNotEnd(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	type attempt struct {
		m    *member
		err  chan error
		path string
	}
	began := time.Now()
	var attempts []attempt
	for _, scheme := range []string{"binary", "binary-v2"} {
		a := attempt{m: l.member("trap34-" + scheme), err: make(chan error, 1)}
		a.path = logger(t, "echo some words >&2; echo $$ >$0.pid; exec $busybox sleep 1000")
		a.m.request.Stdout = scheme + "://" + a.path
		a.m.request.Stderr = a.m.request.Stdout
		attempts = append(attempts, a)
		go func() {
			_, err := a.m.tryCreate(within(t, soon))
			a.err <- err
		}()
	}

	var loggers []string
	for name, script := range map[string]string{"stays": "exec $busybox sleep 1000", "deaf": "trap '' TERM; while :; do $busybox sleep 0.1; done"} {
		m := l.member("trap34-"+name, args("sh", "-c", "echo line"))
		path := logger(t, "exec 5>&-; echo $$ >$0.pid; "+script)
		loggers = append(loggers, path)
		m.request.Stdout = "binary://" + path
		m.request.Stderr = m.request.Stdout
		m.run()
		m.wait("")
		deleted := time.Now()
		m.delete("")
		if took := time.Since(deleted); took > 6*time.Second {
			t.Errorf("Delete waited %s for a logger that does not end", took)
		}
		m.shutdown()
		defer m.clean()
	}
	for _, path := range loggers {
		eventually(t, func() error { return aliveNot(pidIn(t, path+".pid")) })
	}

	for _, a := range attempts {
		err := <-a.err
		if err == nil || !strings.Contains(err.Error(), "some words") {
			t.Errorf("%s: Create with a logger that is never ready gives, after %s: %v", a.m.id, time.Since(began), err)
		}
		if err == nil {
			a.m.end()
			continue
		}
		if err := aliveNot(pidIn(t, a.path+".pid")); err != nil {
			t.Errorf("%s: the logger is left: %v", a.m.id, err)
		}
		a.m.shutdown()
		a.m.clean()
	}
}

func pidIn(t *testing.T, path string) (pid int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = fmt.Sscan(string(text), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// A logger that crashes is not the container's end, nor does the container hang
// with its output. Stock fails: the container dies of SIGPIPE.
func TestTrap34LoggerThatCrashesDoesNotStopTheContainer(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, scheme := range []string{"binary", "binary-v2"} {
		m := l.member("trap34-crash-"+scheme, args("sh", "-c", "seq 1 300000 && exit 3"))
		m.request.Stdout = scheme + "://" + logger(t, "echo >&5; exec 5>&-; read line <&3; exit 1")
		m.request.Stderr = m.request.Stdout
		m.run()
		if status := m.wait(""); status != 3 {
			t.Errorf("%s: the container ended with %d, want 3", scheme, status)
		}
		m.finish()
	}
}

// The client waits for the end of the output before it sends Delete, so the end
// must not wait for Delete.
func TestTrap35OutputEndsBeforeDelete(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	for _, tty := range []bool{false, true} {
		m := l.member(fmt.Sprint("trap35-", tty), args("sh", "-c", "trap 'echo bye; exit 0' TERM; sleep 1000 & wait"),
			func(s *specs.Spec) { s.Process.Terminal = tty })
		init, exec := newTap(t), newTap(t)
		m.request.Terminal, m.request.Stdout = tty, init.path
		r := m.execRequest("e", "echo", "hello")
		r.Terminal, r.Stdout = tty, exec.path
		if !tty {
			m.request.Stderr, r.Stderr = newTap(t).path, newTap(t).path
		}
		m.run()
		m.add(r)
		m.start("e")
		m.wait("e")
		if text := strings.TrimSpace(exec.all()); text != "hello" {
			t.Errorf("the exec's output is %q", text)
		}
		m.ask()
		m.wait("")
		if text := strings.TrimSpace(init.all()); text != "bye" {
			t.Errorf("the container's output is %q", text)
		}
		m.delete("e")
		m.finish()
	}
}
