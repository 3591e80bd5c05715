package vm

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatrun/cleat/integration/compatibility/walk"
	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
	"github.com/cleatrun/cleat/integration/vm/job"
)

func TestMain(m *testing.M) {
	place.KeepIfAsked()
	os.Exit(m.Run())
}

// TestCgroupV2 runs all integration tests on a system that has a unified
// cgroup hierarchy and nothing else.
func TestCgroupV2(t *testing.T) { inMachine(t, "cgroup v2", job.Job{}, job.Tests, "") }

// TestSystemd runs the tests that need systemd on a system that has it.
func TestSystemd(t *testing.T) {
	inMachine(t, "systemd", job.Job{Init: job.Systemd}, job.Tests, "^TestSystemd")
}

// TestPods runs those of the CRI's tests that are about cgroups, and two that are
// about all else, on cgroup v2. The others would take long and say nothing new.
func TestPods(t *testing.T) {
	inMachine(t, "pods on cgroup v2", job.Job{}, job.PodTests, "^Test(PodHasOneShim|OOMKilled|Stats|UpdateContainerResources|HostNamespaces|OperatorOfANode)$")
}

// TestChangeOfContainerd brings another release of containerd under containers
// that run, up and down, on cgroup v2.
func TestChangeOfContainerd(t *testing.T) {
	inMachine(t, "another containerd", job.Job{Env: []string{walk.EnvCell + "=1"}}, job.Walks,
		fmt.Sprintf("^TestChange$/^(%s|%s)$/^(%[1]s|%[2]s)$/^ctr$", older.Name, tools.Newest.Name))
}

// TestCoreScheduling runs the test of core scheduling where the kernel has it and
// both processors are of one core.
func TestCoreScheduling(t *testing.T) {
	if testing.Short() {
		t.Skip("its kernel takes minutes to build")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	kernel, err := tools.EnsureCoreKernel(ctx, os.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	counts := inMachine(t, "core scheduling", job.Job{}, job.Tests, "^TestTrap2CoreScheduling", func(m *machine) {
		m.guest.Kernel, m.threads = kernel, processors
	})
	if counts[skipped] > 0 {
		t.Error("the kernel that was made for it schedules no cores")
	}
}

// TestChaos breaks what containers depend on, on cgroup v2: a few rounds, or what
// CLEAT_TEST_CHAOS says. It is no part of the short form of these tests: each round
// takes most of a minute here.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes too long for the short form")
	}
	j := job.Job{}
	if os.Getenv(envChaos) == "" {
		j.Env = []string{envChaos + "=-seed 4004 -rounds 3 -containers 6"}
	}
	inMachine(t, "chaos on cgroup v2", j, job.Chaos, "^TestChaosAsAsked$")
}

// envChaos names the options of the command chaos.
const envChaos = "CLEAT_TEST_CHAOS"

// prepare makes all that machines are made from, once for all tests.
var prepare = sync.OnceValues(func() (parts struct {
	guest    tools.Guest
	programs programs
}, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	built, err := tools.Ensure(ctx, os.Stdout)
	if err != nil {
		return parts, err
	}
	if parts.guest, err = tools.EnsureGuest(ctx, os.Stdout); err != nil {
		return parts, err
	}
	parts.programs, err = build(ctx, built)
	return parts, err
})

// inMachine boots a machine, runs those tests of a binary that pattern selects
// in it, and makes each of them a subtest of t as soon as it has ended. It
// returns how many ended how.
func inMachine(t *testing.T, name string, j job.Job, tests, pattern string, others ...func(*machine)) map[string]int {
	parts, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	p, err := place.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Remove(); err != nil {
			t.Error(err)
		}
	}()
	limit := deadline(t)
	ctx, cancel := context.WithDeadlineCause(t.Context(), limit, fmt.Errorf("the time for the machine is over"))
	defer cancel()
	instruct(&j, tests, pattern, limit)
	m := machine{place: p, guest: parts.guest, initramfs: p.Path("initramfs"), systemd: j.Init == job.Systemd}
	for _, other := range others {
		other(&m)
	}
	if err := writeInitramfs(m.initramfs, parts.guest, parts.programs, j); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	m.booted = func(kernel string, took time.Duration) {
		fmt.Printf("%s: Linux %s booted in %.1f s\n", name, kernel, took.Seconds())
	}
	counts := map[string]int{}
	r, status, err := collect(ctx, &m, func(test *result) {
		fmt.Printf("%s: %s %s (%.1f s)\n", name, test.word(), test.name, test.elapsed)
		counts[test.word()]++
		t.Run(test.name, test.replay)
	})
	fmt.Printf("%s: %d tests passed, %d failed, %d skipped in %.0f s, %.0f s of processor time\n",
		name, counts[passed], counts[failed], counts[skipped], time.Since(began).Seconds(), m.worked.Seconds())
	switch {
	case err != nil:
		t.Errorf("%v\n%s", err, r.outside.String())
	case status != 0:
		t.Errorf("the tests ended with exit status %d\n%s", status, r.outside.String())
	case len(counts) == 0:
		t.Error("no test ran")
	}
	return counts
}

// cleanup is the time that this side needs after the machine's has run out.
const cleanup = 20 * time.Second

// deadline is when a machine must be gone.
func deadline(t *testing.T) time.Time {
	if limit, ok := t.Deadline(); ok {
		return limit.Add(-cleanup)
	}
	return time.Now().Add(10 * time.Minute)
}

// instruct makes a job run a binary of tests. With -run A/B on this side
// the machine runs those that match B.
func instruct(j *job.Job, tests, pattern string, limit time.Time) {
	if _, wanted, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		pattern = wanted
	}
	// The tests give up before this side does, and then say what hung.
	patience := max(time.Until(limit)-cleanup, time.Second)
	j.Dir = "/tmp"
	j.Env = append(j.Env, tools.EnvBuilt+"="+job.Programs)
	for _, variable := range os.Environ() {
		if strings.HasPrefix(variable, "CLEAT_TEST_") { // the tests' own settings
			j.Env = append(j.Env, variable)
		}
	}
	j.Command = []string{
		tests, "-test.v=test2json", "-test.run=" + pattern,
		fmt.Sprintf("-test.timeout=%s", patience.Round(time.Second)),
		fmt.Sprintf("-test.short=%t", testing.Short()), "-test.parallel=4", // most of a test is waiting
	}
}
