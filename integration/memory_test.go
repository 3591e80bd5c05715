package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	// mostPrivate is how much of its own memory an idle shim may have, in that of
	// the smallest Go process that listens on a socket.
	mostPrivate = 1.9
	// mostThreads that it may have. How many there are depends on which system
	// calls took long.
	mostThreads = 5
)

// TestIdleShimIsSmall compares the memory of idle shims with that of another
// process of the same Go on the same kernel: what all shims of a host have in
// common is not counted.
func TestIdleShimIsSmall(t *testing.T) {
	d := sharedDaemon(t)
	reference := startReference(t)
	var shims, threads []int
	for i := range 3 {
		b := newBox(t, d, fmt.Sprint("small-", i), forever).start(nil)
		pid := b.shimPID()
		shims, threads = append(shims, private(t, pid)), append(threads, procNumber(t, fmt.Sprintf("/proc/%d/status", pid), "Threads:"))
		defer b.end()
	}
	of := private(t, reference)
	t.Logf("shims have %d KiB of their own and %d threads, the reference %d KiB", shims, threads, of)
	for i, size := range shims {
		if ratio := float64(size) / float64(of); ratio > mostPrivate {
			t.Errorf("an idle shim has %d KiB of its own, %.2f × the %d KiB of the reference, more than %.1f ×", size, ratio, of, mostPrivate)
		}
		if threads[i] > mostThreads {
			t.Errorf("it has %d threads, more than %d", threads[i], mostThreads)
		}
	}
}

// TestMemoryOfABurstIsGivenBack makes many containers in one shim. What each costs
// then is what is known of it, and not what it took to make it.
func TestMemoryOfABurstIsGivenBack(t *testing.T) {
	const members, each = 60, 56 // KiB; 68 with a goroutine for each thing that is waited for
	l := newLone(t)
	first := l.member("burst-0", group("burst")).run()
	pid := first.shimPID()
	before := private(t, pid)
	all := l.crowd("burst", members)
	eventually(t, func() error {
		if size := private(t, pid) - before; size > members*each {
			return fmt.Errorf("%d containers have made the shim larger by %d KiB, more than %d for each", members, size, each)
		}
		return nil
	})
	t.Logf("%d containers have made the shim larger by %d KiB", members, private(t, pid)-before)
	for _, m := range append(all, first) {
		m.end()
	}
}

// startReference returns a process that is as a shim is built and run, without
// all that a shim does.
func startReference(t *testing.T) (pid int) {
	t.Helper()
	path, err := programs.Reference(bounded(t))
	if err != nil {
		t.Fatalf("build the reference: %v", err)
	}
	cmd := exec.Command(path, filepath.Join(t.TempDir(), "sock"))
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the reference: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the reference says %q: %v", line, err)
	}
	return cmd.Process.Pid
}

// private is how much memory of its own the process has, in KiB. The pages of its
// program, which all shims share, are not among it, unless it has written to them.
func private(t *testing.T, pid int) int {
	t.Helper()
	return procNumber(t, fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Anonymous:")
}

// procNumber is that behind a key in a file of /proc.
func procNumber(t *testing.T, path, key string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n"+key)
	if !found {
		t.Fatalf("%s has no %s", path, key)
	}
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
