package child

// The test process is the child subreaper here, as the shim is, and reaps
// orphans from the beginning. Processes that launch others for it are this test
// binary again, doing what jobs says.

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const jobEnv = "CHILD_TEST_JOB"

func TestMain(m *testing.M) {
	if job := os.Getenv(jobEnv); job != "" {
		name, arg, _ := strings.Cut(job, ":")
		jobs[name](arg)
		os.Exit(0)
	}
	if err := BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ReapOrphans()
	code := m.Run()
	for _, pid := range children() {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		fmt.Printf("left behind: %s", stat)
		unix.Kill(pid, unix.SIGKILL)
		code = 1
	}
	os.Exit(code)
}

var jobs = map[string]func(arg string){
	// launch leaves behind what it has started.
	"launch": launchScripts,
	// keep is launch, but stays the parent until stdin ends.
	"keep": func(arg string) {
		launchScripts(arg)
		io.Copy(io.Discard, os.Stdin)
	},
	// trace sees the end of a process before its parent does, says so, and
	// lets the parent see it when stdin ends.
	"trace": func(arg string) {
		runtime.LockOSThread()
		pid, _ := strconv.Atoi(arg)
		if err := unix.PtraceSeize(pid); err != nil {
			fmt.Fprintln(os.Stderr, "seize:", err)
			os.Exit(1)
		}
		fmt.Println("traced")
		io.Copy(io.Discard, os.Stdin)
		for {
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || status.Signaled() || status.Exited() {
				return
			}
			unix.PtraceCont(pid, int(status.StopSignal()))
		}
	},
}

// launchScripts starts a shell for each script (separated by newlines) and
// tells its pid.
func launchScripts(scripts string) {
	for script := range strings.SplitSeq(scripts, "\n") {
		pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{Env: []string{"PATH=" + os.Getenv("PATH")}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(pid)
	}
}

// job is a command that runs one of jobs.
func job(name, arg string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	// A race detector that finds nothing otherwise takes a second to end.
	cmd.Env = append(os.Environ(), jobEnv+"="+name+":"+arg, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// launchAll has a process that ends start the scripts, and returns their pids.
// As the OCI runtime's are, they are the test's own children by then. The
// caller has announced the launch.
func launchAll(t testing.TB, scripts ...string) []int {
	t.Helper()
	var out bytes.Buffer
	cmd := job("launch", strings.Join(scripts, "\n"))
	cmd.Stdout = &out
	command, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command.Wait(t.Context()); err != nil || !command.Success() {
		t.Fatalf("launch: %v, %v", cmd.ProcessState, err)
	}
	return numbers(t, &out, len(scripts))
}

func numbers(t testing.TB, r io.Reader, n int) (pids []int) {
	t.Helper()
	if f, ok := r.(*os.File); ok {
		f.SetReadDeadline(time.Now().Add(20 * time.Second))
	}
	lines := bufio.NewScanner(r)
	for len(pids) < n && lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != n {
		t.Fatalf("told of %d processes instead of %d", len(pids), n)
	}
	return pids
}

// launchOne launches a script and adopts it.
func launchOne(t testing.TB, script string) *Child {
	t.Helper()
	defer Launching()()
	c, err := Adopt(launchAll(t, script)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Signal(unix.SIGKILL); c.Close() })
	return c
}

// waited has what c's end leads to.
func waited(c *Child) <-chan result {
	got := make(chan result, 2) // a second would be a fault
	c.Await(func(exit Exit, err error) { got <- result{exit, err} })
	return got
}

// wait waits for the end of c, which has come or is to come.
func wait(t testing.TB, c *Child) (Exit, error) {
	t.Helper()
	got := receive(t, "the end of the process", waited(c))
	return got.exit, got.err
}

type result struct {
	exit Exit
	err  error
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("not in time: %s", what)
		panic("unreachable")
	}
}

// eventually fails the test when cond does not come true in time.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// state of a process as proc_pid_stat(5) has it, 0 when there is none.
func state(pid int) byte {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	return stat[bytes.LastIndexByte(stat, ')')+2]
}

func zombie(pid int) bool { return state(pid) == 'Z' }
func gone(pid int) bool   { return state(pid) == 0 }

func eventuallyAll(t testing.TB, what string, pids []int, is func(pid int) bool) {
	t.Helper()
	eventually(t, what, func() bool {
		for _, pid := range pids {
			if !is(pid) {
				return false
			}
		}
		return true
	})
}

// children of the test process, zombies too, if the kernel lists them.
func children() (pids []int) {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		list, _ := os.ReadFile(file) // its thread may have ended
		for word := range strings.FieldsSeq(string(list)) {
			pid, _ := strconv.Atoi(word)
			pids = append(pids, pid)
		}
	}
	return pids
}

// nextTick returns when a launch that begins now cannot be the origin of any
// process that there is already.
func nextTick(t testing.TB) {
	t.Helper()
	from := now()
	eventually(t, "the next tick of the clock", func() bool { return now() > from })
}
