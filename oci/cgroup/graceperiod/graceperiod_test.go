package graceperiod

import (
	"os"
	"path"
	"slices"
	"testing"
	"time"
)

func TestProcsOf(t *testing.T) {
	for line, want := range map[string]string{
		"0::/":                       "/sys/fs/cgroup/cgroup.procs",
		"0::/a/b":                    "/sys/fs/cgroup/a/b/cgroup.procs",
		"4:pids:/a":                  "/sys/fs/cgroup/pids/a/cgroup.procs",
		"4:cpu,cpuacct:/":            "/sys/fs/cgroup/cpu,cpuacct/cgroup.procs",
		"1:name=systemd:/init.scope": "/sys/fs/cgroup/systemd/init.scope/cgroup.procs",
		"4:pids:/with:colon":         "/sys/fs/cgroup/pids/with:colon/cgroup.procs",
		"4:pids:relative":            "",
		"4:pids":                     "",
		"":                           "",
	} {
		if got := procsOf(line); path.Clean(got) != want && got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestBeginLeavesTheProcessWhereItIs(t *testing.T) {
	before := groups(t)
	if !attach() {
		t.Fatalf("nothing was written, with these groups:\n%s", before)
	}
	begun(t)
	if after := groups(t); after != before {
		t.Errorf("the process was in\n%sand is in\n%s", before, after)
	}
}

// rest is longer than the kernel remembers.
const rest = 100 * time.Millisecond

func TestWhatComesAfterBeginDoesNotWait(t *testing.T) { testNoWaitAfter(t, begun) }

func testNoWaitAfter(t *testing.T, begun func(*testing.T)) {
	var alone, after []time.Duration
	for range 7 {
		time.Sleep(rest)
		alone = append(alone, took(t))
		time.Sleep(rest)
		begun(t)
		after = append(after, took(t))
	}
	without, with := median(alone), median(after)
	t.Logf("moving a process takes %s, and %s afterwards", without, with)
	if limit := max(without/2, 2*time.Millisecond); with > limit {
		t.Errorf("moving a process takes %s, and %s afterwards", without, with)
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func took(t *testing.T) time.Duration {
	began := time.Now()
	if !attach() {
		t.Fatal("nothing was written")
	}
	return time.Since(began)
}

// begun begins a grace period and waits for its end.
func begun(t *testing.T) {
	t.Helper()
	Begin()
	for deadline := time.Now().Add(10 * time.Second); underWay.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
	}
}

func groups(t *testing.T) string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
