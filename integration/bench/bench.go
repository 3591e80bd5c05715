package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/tools"
)

// measurement is one file of this folder.
type measurement struct {
	name, what string
	needsRoot  bool
	run        func(*bench) error
}

// measurements are in the order in which they are taken.
var measurements = []measurement{
	{"size", "size of the programs", false, measureSize},
	{"life", "a task's life by phase, one after the other", true, measureLife},
	{"parallel", "the same, 8 at a time", true, measureParallel},
	{"hand", "the same by hand: the OCI runtime without any shim", true, measureHand},
	{"exec", "an exec's life in a running container", true, measureExec},
	{"cpu", "CPU of each process of the shim over a container's life", true, measureCPU},
	{"memory", "memory of idle containers, own shim and grouped", true, measureMemory},
	{"kernel", "kernel memory of a shim", true, measureKernelMemory},
	{"floor", "memory and CPU of a Go process that does nothing", false, measureFloor},
	{"conmon", "memory and CPU of conmon, which is C and has no API", true, measureConmon},
	{"output", "throughput of standard output and of a terminal", true, measureOutput},
	{"metrics", "asking for statistics", true, measureMetrics},
	{"kill", "sending a signal", true, measureKill},
	{"updown", "many containers up and down", true, measureUpDown},
	{"stress", "containerd-stress", true, measureStress},
	{"idle", "wake-ups of a shim that has nothing to do", true, measureIdle},
	{"upgrade", "the pause of an upgrade, at rest and under load", true, measureUpgrade},
	{"growth", "cost per container as containers grow", true, measureGrowth},
}

// counts say how much is measured in one form of the benchmark.
type counts struct {
	rounds   int           // samples of what takes tens of milliseconds
	calls    int           // samples of what takes less
	budget   time.Duration // after that a measurement makes no more rounds than three
	idle     []int         // how many containers are idle
	crowd    int           // containers that go up and down
	megabyte int           // of output
	window   time.Duration // in which an idle shim is watched
	stress   time.Duration
	grouped  []int // growth in one shim
	alone    []int // growth in shims of their own
}

var forms = map[string]counts{
	"full": {rounds: 40, calls: 200, budget: 50 * time.Second, idle: []int{1, 20, 100}, crowd: 200, megabyte: 256, window: time.Minute, stress: 5 * time.Second,
		grouped: []int{1, 100, 250, 500, 1000}, alone: []int{1, 50, 100, 200, 300}},
	"quick": {rounds: 5, calls: 40, budget: 3 * time.Second, idle: []int{1, 10}, crowd: 16, megabyte: 128, window: 5 * time.Second, stress: 2 * time.Second,
		grouped: []int{1, 20}, alone: []int{1, 10}},
	"tiny": {rounds: 1, calls: 2, budget: time.Millisecond, idle: []int{1, 2}, crowd: 2, megabyte: 1, window: 100 * time.Millisecond, stress: time.Second,
		grouped: []int{1, 2}, alone: []int{1, 2}},
}

// bench is one run of the benchmark.
type bench struct {
	ctx context.Context // ends by Ctrl-C
	settings
	n        counts
	tools    tools.Tools
	program  string // what the shim is, whatever its release (programOf)
	progress io.Writer
	results  *results

	daemon     *daemon.Daemon
	image      containerd.Image
	contenders []contender // cleat, stock, plain stock
	crun       string      // "" if there is none
	serial     int         // of containers, makes their names
}

// all takes every measurement that was asked for. One that fails does not keep
// the others from being taken.
func (b *bench) all() (failed error) {
	b.results.describe(b)
	fmt.Fprint(b.progress, b.results.Machine.String())
	b.lookAtMachine()
	var wanted []measurement
	needsRoot := false
	for _, m := range measurements {
		if !b.only.MatchString(m.name) {
			continue
		}
		if m.needsRoot && !b.root {
			b.results.leaveOut(b.progress, m.name, "it needs root: containers with their own namespaces and cgroups")
			continue
		}
		needsRoot = needsRoot || m.needsRoot
		wanted = append(wanted, m)
	}
	if len(wanted) == 0 {
		return errors.New("nothing is left to be measured (-list names what can be)")
	}
	if err := b.findContenders(); err != nil {
		return err
	}
	if needsRoot {
		if err := b.begin(); err != nil {
			return err
		}
		defer func() {
			fmt.Fprintln(b.progress, "Cleaning up.")
			failed = errors.Join(failed, b.daemon.Remove())
		}()
	}
	b.warmUp(needsRoot)
	for i, m := range wanted {
		if b.ctx.Err() != nil {
			return failed
		}
		began := time.Now()
		fmt.Fprintf(b.progress, "[%d/%d] %s: %s ...\n", i+1, len(wanted), m.name, m.what)
		err := m.run(b)
		var missing missing
		switch {
		case errors.As(err, &missing):
			b.results.leaveOut(b.progress, m.name, missing.Error())
		case err != nil && b.ctx.Err() == nil:
			b.results.leaveOut(b.progress, m.name, "it failed: "+err.Error())
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name, err))
		case err == nil:
			b.results.measured = append(b.results.measured, m.name)
			fmt.Fprintf(b.progress, "        %.1f s\n", time.Since(began).Seconds())
		}
	}
	b.results.whole = b.ctx.Err() == nil
	return failed
}

// missing is the error of a measurement that this machine does not allow.
type missing string

func (m missing) Error() string { return string(m) }

// begin starts the private containerd.
func (b *bench) begin() error {
	archive, err := imageFile(b.tools.Busybox)
	if err != nil {
		return err
	}
	defer archive.remove()
	if b.daemon, err = daemon.Start(b.ctx, daemon.Config{Tools: b.tools, Runtime: b.contenders[0].runtime, Image: archive.path, StateInMemory: true}); err != nil {
		return err
	}
	fmt.Fprintf(b.progress, "A private containerd runs as process %d in %s.\n", b.daemon.PID(), b.daemon.Dir)
	client, err := b.daemon.Client()
	if err == nil {
		b.image, err = client.GetImage(b.daemon.Context(b.ctx), image.Name)
	}
	if err != nil {
		return errors.Join(err, b.daemon.Remove())
	}
	return nil
}

// warmUp runs every contender once, so that none has to be read from the disk when
// it is measured. What fails here fails again later.
func (b *bench) warmUp(needsRoot bool) {
	if !needsRoot {
		return
	}
	fmt.Fprintln(b.progress, "Each contender runs once, to warm up.")
	for _, c := range b.contenders {
		b.life(c, b.name("warm"), "warm", cio.NullIO)
	}
	clear(b.results.Metrics)
}

// rounds counts up to n. It stops when the time for a measurement is used up, but
// not before the third, and on Ctrl-C.
func (b *bench) rounds(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		began := time.Now()
		for i := range n {
			if b.ctx.Err() != nil || i >= 3 && time.Since(began) > b.n.budget {
				return
			}
			if !yield(i) {
				return
			}
		}
	}
}

// shuffled is who is compared, in another order for each round: what runs first,
// or after another one, may find caches colder or warmer. The orders are the same
// in every run.
func shuffled(all []contender, round int) []contender {
	order := slices.Clone(all)
	random := rand.New(rand.NewPCG(1, uint64(round)))
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// add keeps one sample.
func (b *bench) add(metric, contender string, value float64) {
	b.results.add(metric, contender, value)
}

// addTime keeps one sample of a duration, in milliseconds.
func (b *bench) addTime(metric, contender string, value time.Duration) {
	b.add(metric, contender, ms(value))
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// name makes the next container's id.
func (b *bench) name(what string) string {
	b.serial++
	return fmt.Sprintf("%s-%d", what, b.serial)
}
