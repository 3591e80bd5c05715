package child

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Daemons that hooks leave behind, processes of host PID containers: nobody
// waits for them, and zombies count against the pids limit for ever.
func TestOrphansAreReaped(t *testing.T) {
	pids := launchAll(t, "exit 0", "exit 1", "kill -KILL $$", "sleep 0.05")
	eventuallyAll(t, "the reaping of all orphans", pids, gone)
}

// Without the wait an exit that comes before its pid is told is stolen.
func TestUnknownZombieIsKeptWhileItsLaunchMayBeUnderWay(t *testing.T) {
	first := Launching()
	defer first()
	second := Launching()
	defer second()
	pid := launchAll(t, "exit 0")[0]
	eventually(t, "the end", func() bool { return zombie(pid) })
	for range 3 {
		family.reapOrphans()
		if gone(pid) {
			t.Fatal("reaped while both launches were under way")
		}
	}
	second()
	family.reapOrphans()
	if gone(pid) {
		t.Fatal("reaped while the first launch was under way")
	}
	nextTick(t)
	later := Launching() // has nothing to do with it
	defer later()
	first()
	if !gone(pid) {
		t.Fatal("not reaped at the end of the last launch that may have made it")
	}
	first() // ends once
}

// An exec probe every few milliseconds: when each launch holds up one orphan
// that is seen for the first time at its end, orphans are reaped more slowly
// than they come, until there are no pids left on the host.
func TestOrphansDoNotStarveUnderOverlappingLaunches(t *testing.T) {
	end := Launching()
	defer func() { end() }()
	pids := launchAll(t, slices.Repeat([]string{"exit 0"}, 100)...)
	eventuallyAll(t, "the end of all", pids, zombie)
	nextTick(t)
	for range 2 { // one after the other, and at any time one
		next := Launching()
		end()
		end = next
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Fatal("orphans are left though every launch of their time is over")
		}
	}
}

// The kernel shows the first zombie only. If it stays because its owner does
// not ask, all others stay too.
func TestOrphansDoNotStarveBehindAnOwnedZombie(t *testing.T) {
	command, err := Start(exec.Command("/bin/sh", "-c", "exit 3"))
	if err != nil {
		t.Fatal(err)
	}
	// Nobody waits for it.
	pids := launchAll(t, "exit 0", "exit 0")
	eventuallyAll(t, "the reaping of orphans", pids, gone)
	if state, err := command.Wait(t.Context()); err != nil || state.ExitCode() != 3 {
		t.Errorf("%v, %v", state, err)
	}
}

// A number goes to a new process as soon as the old one is reaped, which is
// before the old one's owner has said that it lets go.
func TestReusedNumberStaysOwned(t *testing.T) {
	end := Launching()
	defer end()
	pid := launchAll(t, "read line; exit 9")[0] // stdin is closed: ends at once
	family.own(pid)                             // by the owner of the one before
	c, err := Adopt(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	family.disown(pid)
	end()
	eventually(t, "the end", func() bool { return zombie(pid) || gone(pid) })
	family.reapOrphans()
	if got := receive(t, "the exit", waited(c)); got.err != nil {
		t.Errorf("its exit was taken: %v", got.err)
	}
}

// Something in the program that uses os/exec, as mount helpers do.
func TestOsExecWithinALaunchKeepsItsExit(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				end := Launching()
				if err := exec.Command("/bin/sh", "-c", "exit 0").Run(); err != nil {
					t.Errorf("its exit was taken: %v", err)
				}
				end()
			}
		})
	}
	all.Wait()
}

// The whole of it at once. Every exit that somebody owns arrives, with its own
// status; every other process is reaped; none stays a zombie.
func TestNoExitIsStolenOrLostUnderLoad(t *testing.T) {
	const workers, rounds, owned, orphans = 8, 8, 24, 12
	var all sync.WaitGroup
	var mu sync.Mutex
	var exits int
	for worker := range workers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range rounds {
				n := launchSome(t, random, owned, orphans)
				mu.Lock()
				exits += n
				mu.Unlock()
			}
		})
	}
	for range 2 { // OCI runtimes that launch nothing, and mount helpers
		all.Go(func() {
			for i := range 60 {
				want := i % 256
				command, err := Start(exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", want)))
				if err != nil {
					t.Error(err)
					return
				}
				if state, err := command.Wait(t.Context()); err != nil || state.ExitCode() != want {
					t.Errorf("command ended with %v, %v; want %d", state, err, want)
				}
				end := Launching()
				if err := exec.Command("/bin/sh", "-c", "exit 0").Run(); err != nil {
					t.Errorf("helper: %v", err)
				}
				end()
			}
		})
	}
	all.Wait()
	if want := workers * rounds * owned; exits != want {
		t.Errorf("%d exits arrived, want %d", exits, want)
	}
	eventually(t, "that no child is left", func() bool { return len(children()) == 0 })
	family.mu.Lock()
	defer family.mu.Unlock()
	if len(family.owned) != 0 || len(family.launches) != 0 {
		t.Errorf("left over: %d owned, %d launches", len(family.owned), len(family.launches))
	}
}

// launchSome is one launch by a process that ends, of some that are adopted in
// any order, mostly after they have ended, and of some that are not. It returns
// how many exits arrived.
func launchSome(t *testing.T, random *rand.Rand, owned, orphans int) (exits int) {
	var scripts []string
	var want []int
	for i := range owned + orphans {
		status := random.IntN(256)
		script := fmt.Sprintf("exit %d", status)
		switch random.IntN(6) {
		case 0:
			script = "sleep 0.02; " + script
		case 1:
			status = 128 + int(unix.SIGKILL)
			script = "kill -KILL $$"
		}
		if i >= owned { // with an orphan of its own
			script = "(exit 1) & " + script
		}
		scripts = append(scripts, script)
		want = append(want, status)
	}
	end := Launching()
	defer end()
	var out strings.Builder
	cmd := job("launch", strings.Join(scripts, "\n"))
	cmd.Stdout = &out
	command, err := Start(cmd)
	if err != nil {
		t.Error(err)
		return 0
	}
	if state, err := command.Wait(t.Context()); err != nil || !state.Success() {
		t.Errorf("launch: %v, %v", state, err)
		return 0
	}
	pids := numbers(t, strings.NewReader(out.String()), len(scripts))
	got := make([]<-chan result, owned)
	for _, i := range random.Perm(owned) {
		c, err := Adopt(pids[i])
		if err != nil {
			t.Errorf("stolen before it was adopted: %v", err)
			continue
		}
		got[i] = waited(c)
		defer c.Close()
	}
	end()
	for i, from := range got {
		if from == nil {
			continue
		}
		r := receive(t, "an exit", from)
		if r.err != nil || r.exit.Status != want[i] {
			t.Errorf("process %d ended with %+v, %v; want status %d", pids[i], r.exit, r.err, want[i])
			continue
		}
		exits++
	}
	return exits
}

func TestStartTime(t *testing.T) {
	rest := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, c := range []struct {
		stat string
		want uint64
		ok   bool
	}{
		{"17 (sh)" + rest, 4242, true},
		{"17 (a b) c (d)" + rest, 4242, true},
		{"17 (new\nline)" + rest, 4242, true},
		{"17 ()" + rest + "\n", 4242, true},
		{"", 0, false},
		{"17", 0, false},
		{"17 (sh)", 0, false},
		{"17 (sh) Z 1 2 3", 0, false},
		{"17 (sh)" + strings.Replace(rest, "4242", "x", 1), 0, false},
		{"17 (sh)" + strings.Replace(rest, "4242", "-1", 1), 0, false},
	} {
		got, err := field([]byte(c.stat), 22)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v", c.stat, got, err)
		}
	}
}

// The two clocks are compared: a process must not seem to be older than the
// launch that made it.
func TestProcessIsNotOlderThanItsLaunch(t *testing.T) {
	for range 20 {
		before := now()
		cmd := exec.Command("/bin/sh", "-c", "read line")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		command, err := Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		born, err := bornAt(command.PID())
		if after := now(); err != nil || born < before || born > after {
			t.Errorf("born at %d, %v; launched from %d to %d", born, err, before, after)
		}
		in.Close()
		if _, err := command.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
