package integration

// Upgrades of running shims, under load. What they cost is printed by
// TestUpgradesUnderLoad and TestUpgradesAtRest:
//
//	CLEAT_TEST_ROUNDS=1000 go test -count 1 -v -run TestUpgrades .

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/tools"
)

// upgrades is how many a test does: few, unless it is told.
func upgrades(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv(envRounds)
	if text == "" {
		return fewer(few)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", envRounds, err)
	}
	return n
}

// onlyOurs skips what stock cannot do.
func onlyOurs(t *testing.T) {
	t.Helper()
	if onStock() {
		t.Skip("containerd's own shim cannot be upgraded")
	}
}

// inMachine tells that the tests run in a virtual machine without a compiler, where
// everything takes ten times as long.
func inMachine() bool { return os.Getenv(tools.EnvBuilt) != "" }

// upgradeTo replaces the program of a shim.
func upgradeTo(t *testing.T, shim *daemon.Shim, program string) daemon.Upgraded {
	t.Helper()
	upgraded, err := shim.Upgrade(within(t, soon), program)
	if err != nil {
		t.Fatalf("upgrade to %s: %v", program, err)
	}
	return upgraded
}

// pauses are how long calls had to wait, upgrade by upgrade.
type pauses []daemon.Upgraded

func (p pauses) percentile(n int) time.Duration {
	all := make([]time.Duration, len(p))
	for i, u := range p {
		all[i] = u.Pause
	}
	slices.Sort(all)
	return all[min(len(all)*n/100, len(all)-1)]
}

// print tells where the time goes.
func (p pauses) print(t *testing.T, what string) {
	t.Helper()
	parts := []struct {
		name string
		took func(daemon.Upgraded) time.Duration
	}{
		{"stop calls", func(u daemon.Upgraded) time.Duration { return u.Times.Stopped.Sub(u.Times.Drained) }},
		{"hold containers", func(u daemon.Upgraded) time.Duration { return u.Times.Held.Sub(u.Times.Stopped) }},
		{"save", func(u daemon.Upgraded) time.Duration { return u.Times.Saved.Sub(u.Times.Held) }},
		{"exec", func(u daemon.Upgraded) time.Duration { return u.Times.Arrived.Sub(u.Times.Saved) }},
		{"initialise", func(u daemon.Upgraded) time.Duration { return u.Times.Begun.Sub(u.Times.Arrived) }},
		{"restore", func(u daemon.Upgraded) time.Duration { return u.Times.Built.Sub(u.Times.Begun) }},
		{"go on", func(u daemon.Upgraded) time.Duration { return u.Times.Served.Sub(u.Times.Built) }},
	}
	var text strings.Builder
	for _, part := range parts {
		all := make([]time.Duration, len(p))
		for i, u := range p {
			all[i] = part.took(u)
		}
		slices.Sort(all)
		fmt.Fprintf(&text, ", %s %.2f", part.name, ms(all[len(all)/2]))
	}
	try := make([]time.Duration, len(p))
	drain := make([]time.Duration, len(p))
	for i, u := range p {
		try[i], drain[i] = u.Times.Tried.Sub(u.Times.Asked), u.Times.Drained.Sub(u.Times.Tried)
	}
	slices.Sort(try)
	slices.Sort(drain)
	t.Logf("%s: %d upgrades, pause in ms: median %.1f, p90 %.1f, p99 %.1f, max %.1f (medians of its parts%s); before it the trial takes %.1f and slow calls %.1f",
		what, len(p), ms(p.percentile(50)), ms(p.percentile(90)), ms(p.percentile(99)), ms(p.percentile(100)), text.String(),
		ms(try[len(try)/2]), ms(drain[len(drain)/2]))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// footprint is what must not grow with upgrades.
type footprint struct {
	descriptors, threads int
	memory               int // KiB, without the pages of the program, which are as many as were needed
}

func (m *member) footprint(pid int) footprint {
	m.t.Helper()
	f := footprint{descriptors: len(descriptors(m.t, pid))}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		m.t.Fatal(err)
	}
	f.threads = len(threads)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Anonymous:" {
			n, _ := strconv.Atoi(fields[1])
			f.memory += n
		}
	}
	return f
}

// grown tells what has grown beyond what is by chance.
func (f footprint) grown(from footprint) error {
	var failures error
	if f.descriptors > from.descriptors {
		failures = errors.Join(failures, fmt.Errorf("%d descriptors, %d before", f.descriptors, from.descriptors))
	}
	if f.threads > from.threads+4 {
		failures = errors.Join(failures, fmt.Errorf("%d threads, %d before", f.threads, from.threads))
	}
	if f.memory > from.memory+2048 {
		failures = errors.Join(failures, fmt.Errorf("%d KiB of private memory, %d before", f.memory, from.memory))
	}
	return failures
}

// TestUpgradesAtRest measures the pause of a shim that has one container and
// nothing to do.
func TestUpgradesAtRest(t *testing.T) {
	onlyOurs(t)
	l := newLone(t)
	m := l.member("rest").run()
	var all pauses
	for range upgrades(t, 20) {
		all = append(all, upgradeTo(t, m.shim, programs.Shim))
	}
	all.print(t, "at rest")
	m.end()
}

// TestUpgradesOfALargeGroup has many containers in one shim, whose exits must all
// be seen afterwards: 100, if more than a few upgrades are asked for.
func TestUpgradesOfALargeGroup(t *testing.T) {
	onlyOurs(t)
	members := 20
	if os.Getenv(envRounds) != "" {
		members = 100
	}
	l := newLone(t)
	first := l.member("crowd-0", group("crowd")).run()
	all := append([]*member{first}, l.crowd("crowd", members-1)...)
	var p pauses
	for range upgrades(t, 5) {
		p = append(p, upgradeTo(t, first.shim, programs.Shim))
	}
	p.print(t, fmt.Sprintf("%d containers", members))
	for _, m := range all {
		m.kill("", unix.SIGKILL)
		if i := len(m.id) % 2; i == 0 { // some end before, some after
			p = append(p, upgradeTo(t, m.shim, programs.Shim))
		}
	}
	for _, m := range all {
		if status := m.wait(""); status != 137 {
			t.Errorf("%s ended with %d", m.id, status)
		}
	}
	for _, m := range all {
		m.finish()
	}
}

// variant is the shim with another version of the state.
func variant(t *testing.T, v tools.Variant) string {
	t.Helper()
	path, err := programs.Variant(within(t, testTime), v)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUpgradeAndDowngradeBetweenVersionsOfTheState goes to a program that writes
// a later version of the state, and back; and is refused by one that cannot read
// ours, or that ours cannot be handed to.
func TestUpgradeAndDowngradeBetweenVersionsOfTheState(t *testing.T) {
	onlyOurs(t)
	next, future, apart := variant(t, tools.NextState), variant(t, tools.FutureState), variant(t, tools.ApartState)
	l := newLone(t)
	m := l.member("versions").run()
	for range 3 {
		if u := upgradeTo(t, m.shim, next); u.To != "next" {
			t.Errorf("upgraded %+v", u)
		}
		if info, err := m.shim.Info(m.ctx); err != nil || info.Release != "next" || info.StateVersion != 3 {
			t.Errorf("info %+v, %v", info, err)
		}
		if u := upgradeTo(t, m.shim, programs.Shim); u.From != "next" {
			t.Errorf("went back %+v", u)
		}
	}
	refused := func(path, words string) {
		t.Helper()
		_, err := m.shim.Upgrade(m.ctx, path)
		if err = errgrpc.ToNative(err); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", path, err)
		}
	}
	refused(future, "it reads the state from version 4 on, and that of the running program is of version 2")
	upgradeTo(t, m.shim, apart)
	refused(programs.Shim, "can be handed to version 3 and later")
	upgradeTo(t, m.shim, next)
	m.end()
}

// load is what goes on in a shim while it is upgraded. Each of its parts checks
// what it is answered, and ends, in its own time, when stop is closed.
type load struct {
	t     *testing.T
	m     *member
	stop  chan struct{}
	parts errgroup.Group
}

func (l *load) add(name string, part func(round int) error) {
	l.parts.Go(func() error {
		for round := 0; ; round++ {
			select {
			case <-l.stop:
				l.t.Logf("%s: %d rounds", name, round)
				return nil
			default:
			}
			if err := part(round); err != nil {
				return fmt.Errorf("%s, round %d: %w", name, round, err)
			}
		}
	})
}

// TestUpgradesUnderLoad replaces the program of a shim again and again while all
// kinds of calls are made, containers and execs live and die. No call is lost or
// answered twice, every exit is right, and nothing grows.
func TestUpgradesUnderLoad(t *testing.T) {
	onlyOurs(t)
	l := newLone(t)
	m := l.member("load", group("load")).run()
	pid := m.shimPID()
	upgradeTo(t, m.shim, programs.Shim) // what the first one makes is not growth
	before := m.footprint(pid)

	long := context.WithoutCancel(m.ctx)
	work := &load{t: t, m: m, stop: make(chan struct{})}
	for i := range 8 {
		work.add(fmt.Sprintf("state %d", i), func(int) error {
			r, err := m.shim.State(long, &task.StateRequest{ID: m.id})
			if err == nil && r.Bundle != m.bundle {
				err = fmt.Errorf("answered %v", r)
			}
			return err
		})
	}
	work.add("stats", func(int) error {
		r, err := m.shim.Stats(long, &task.StatsRequest{ID: m.id})
		if err == nil && len(r.GetStats().GetValue()) == 0 {
			err = errors.New("no statistics")
		}
		return err
	})
	work.add("large frames", func(round int) error {
		id := strings.Repeat("x", 50<<10) + strconv.Itoa(round)
		_, err := m.shim.State(long, &task.StateRequest{ID: id})
		if err = errgrpc.ToNative(err); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), id) {
			return fmt.Errorf("answered %.100v", err)
		}
		return nil
	})
	work.add("connections", func(int) error {
		other := &member{lone: m.lone, id: m.id}
		if err := other.tryDial(m.shim.Address); err != nil {
			return err
		}
		defer other.shim.Close()
		r, err := other.shim.Connect(long, &task.ConnectRequest{ID: m.id})
		if err == nil && int(r.ShimPid) != pid {
			err = fmt.Errorf("answered %v", r)
		}
		return err
	})
	work.add("execs", func(round int) error {
		id, code := fmt.Sprintf("exec-%d", round), round%200
		return m.execOnce(long, id, code)
	})
	work.add("execs with input", func(round int) error {
		text := strings.Repeat(fmt.Sprintln("line of round", round), 1+round*37%3000)
		return m.execEcho(long, fmt.Sprintf("echo-%d", round), text, round%200)
	})
	work.add("containers", func(round int) error {
		id, code := fmt.Sprintf("short-%d", round), round%200
		short := l.prepare(id, group("load"), args("sh", "-c", fmt.Sprintf("sleep 0.02; exit %d", code)))
		return short.liveOnce(long, code)
	})

	var all pauses
	failed := make(chan error, 1)
	go func() { failed <- work.parts.Wait() }()
	n := upgrades(t, 40)
	var broken error
	for range n {
		all = append(all, upgradeTo(t, m.shim, programs.Shim))
		select {
		case broken = <-failed:
		default:
		}
		if broken != nil {
			t.Fatal(broken)
		}
	}
	close(work.stop)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	all.print(t, "under load")
	upgradeTo(t, m.shim, programs.Shim) // what the load made is no growth either
	eventually(t, func() error { return m.footprint(pid).grown(before) })
	t.Logf("footprint before %+v, after %+v", before, m.footprint(pid))
	var left struct {
		Info            daemon.ShimInfo
		Requests, Calls []any
	}
	if err := m.shim.Control(m.ctx, "Inspect", nil, &left); err != nil || len(left.Requests) != 1 || len(left.Calls) != 0 || left.Info.Upgrades != n+2 {
		t.Errorf("left: %+v, %v", left, err)
	}
	m.end()
}

// execOnce runs an exec through its life and checks its exit.
func (m *member) execOnce(ctx context.Context, id string, code int) error {
	if _, err := m.shim.Exec(ctx, m.execRequest(id, "sh", "-c", fmt.Sprintf("exit %d", code))); err != nil {
		return err
	}
	waited := make(chan error, 1)
	go func() {
		r, err := m.shim.Wait(ctx, &task.WaitRequest{ID: m.id, ExecID: id})
		if err == nil && int(r.ExitStatus) != code {
			err = fmt.Errorf("wait says %d, not %d", r.ExitStatus, code)
		}
		waited <- err
	}()
	if _, err := m.shim.Start(ctx, &task.StartRequest{ID: m.id, ExecID: id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if err := <-waited; err != nil {
		return err
	}
	r, err := m.shim.Delete(ctx, &task.DeleteRequest{ID: m.id, ExecID: id})
	if err == nil && int(r.ExitStatus) != code {
		err = fmt.Errorf("delete says %d, not %d", r.ExitStatus, code)
	}
	return err
}

// liveOnce takes a container through its life and checks its exit.
func (m *member) liveOnce(ctx context.Context, code int) error {
	if _, err := m.tryBoot(); err != nil {
		return err
	}
	m.shim = nil
	answer, err := os.ReadFile(filepath.Join(m.bundle, "address"))
	if err != nil {
		return err
	}
	if err := m.tryDial(string(answer)); err != nil {
		return err
	}
	defer m.shim.Close()
	if _, err := m.tryCreate(ctx); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := m.shim.Start(ctx, &task.StartRequest{ID: m.id}); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	r, err := m.shim.Wait(ctx, &task.WaitRequest{ID: m.id})
	if err != nil || int(r.ExitStatus) != code {
		return fmt.Errorf("wait says %d, %v", r.GetExitStatus(), err)
	}
	d, err := m.shim.Delete(ctx, &task.DeleteRequest{ID: m.id})
	if err != nil || int(d.ExitStatus) != code {
		return fmt.Errorf("delete says %d, %v", d.GetExitStatus(), err)
	}
	if _, err := m.shim.Shutdown(ctx, &task.ShutdownRequest{ID: m.id}); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	m.log.Close()
	return os.RemoveAll(m.bundle)
}
