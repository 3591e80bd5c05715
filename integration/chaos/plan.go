package main

// The plan of a round: what runs and what goes wrong, all of it drawn from the
// seed and the number of the round before anything is done. The same two numbers
// give the same plan, so a round can be run again by itself.

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// fault is a kind of what goes wrong.
type fault string

const (
	killShim       fault = "shim"       // SIGKILL to the shim
	killContainerd fault = "containerd" // SIGKILL to containerd, which is started again after a while
	killRuntime    fault = "runtime"    // SIGKILL to a call of the OCI runtime: before, while or after it works
	slowRuntime    fault = "delay"      // a call of the OCI runtime takes long
	killLogger     fault = "logger"     // SIGKILL to a binary:// logger
	badConnection  fault = "connection" // somebody connects to the shim's socket, sends rubbish or half a request, and leaves
	freezeCgroup   fault = "freeze"     // the container's cgroup is frozen for a while
	fullDisk       fault = "disk"       // the filesystem of the bundles, or of the logs, is full for a while
	upgradeShim    fault = "upgrade"    // the shim's program is replaced in place
	goneReader     fault = "reader"     // the client that reads the output goes away and comes back
	hastyCaller    fault = "caller"     // a call's deadline passes early
	stopShim       fault = "stop"       // SIGSTOP to the shim, SIGCONT after a while
)

var allFaults = []fault{
	killShim, killContainerd, killRuntime, slowRuntime, killLogger, badConnection,
	freezeCgroup, fullDisk, upgradeShim, goneReader, hastyCaller, stopShim,
}

// step is a moment of a container's life at which a fault may begin.
type step string

const (
	creating step = "create"
	created  step = "created"
	starting step = "start"
	started  step = "started"
	exited   step = "exited"
	deleting step = "delete"
)

var steps = []step{creating, created, starting, started, exited, deleting}

// sinkKind is where output goes.
type sinkKind string

const (
	fifoSink     sinkKind = "fifo"
	terminalSink sinkKind = "terminal"
	fileSink     sinkKind = "file"
	loggerSink   sinkKind = "logger"
)

// ending is how a container's init process comes to its end.
type ending string

const (
	byItself  ending = "itself"
	bySigterm ending = "SIGTERM"
	bySigkill ending = "SIGKILL"
)

// program is what a guest does, see package cast.
type program struct {
	Out, Err int64
	Piece    int64
	Pause    time.Duration // between pieces
	Stay     time.Duration // at the end, negative for ever
	Code     int
	Sink     sinkKind
}

// execPlan is one exec.
type execPlan struct {
	ID    string
	After time.Duration // after the start of the container
	Runs  program
}

// containerPlan is one container.
type containerPlan struct {
	ID      string
	Group   string // that shares a shim, "" for a shim of its own
	After   time.Duration
	Runs    program
	Ends    ending
	EndsIn  time.Duration // after its start, where it is ended by a signal
	Execs   []execPlan
	Overlap bool // it is ended while its execs run
	HostPID bool // it shares the host's PID namespace: the kernel does not end its execs with its init
}

// shim names the shim of a container among those of a round.
func (c containerPlan) shim() string {
	if c.Group != "" {
		return c.Group
	}
	return c.ID
}

// faultPlan is one fault.
type faultPlan struct {
	Kind      fault
	Container string
	At        step
	After     time.Duration // after that step was reached
	For       time.Duration // of what lasts

	// Of the runtime: the verb, and when its call is killed, as the order of
	// package cast has it. Of a caller: the verb. Of a connection: what it sends.
	Verb string
	Kill int
}

func (f faultPlan) String() string {
	text := fmt.Sprintf("%s at %s of %s", f.Kind, f.At, f.Container)
	if f.Verb != "" {
		text += " (" + f.Verb
		if f.Kind == killRuntime {
			text += map[bool]string{true: fmt.Sprintf(", killed after %d ms", f.Kill), false: map[int]string{0: ", killed before", -2: ", killed when done"}[f.Kill]}[f.Kill > 0]
		}
		text += ")"
	}
	if f.After > 0 {
		text += fmt.Sprintf(" + %s", f.After)
	}
	if f.For > 0 {
		text += fmt.Sprintf(", for %s", f.For)
	}
	return text
}

// plan is one round.
type plan struct {
	Seed       uint64
	Round      int
	Kinds      []fault
	Containers []containerPlan
	Faults     []faultPlan
}

// anchor is the container that is there for as long as a round lasts, in a shim
// that others come to and go from: what grows there is a leak.
const (
	anchor      = "anchor"
	anchorGroup = "group-0"
)

// draw makes the plan of a round: with a few of the kinds of faults, or with every
// one.
func draw(seed uint64, round int, containers int, kinds []fault, every bool) plan {
	r := dice{rand.New(rand.NewPCG(seed, uint64(round)))}
	p := plan{Seed: seed, Round: round}

	// Few kinds a round: what is allowed when everything goes wrong at once is
	// nearly everything.
	p.Kinds = slices.Clone(kinds)
	r.Shuffle(len(p.Kinds), func(i, j int) { p.Kinds[i], p.Kinds[j] = p.Kinds[j], p.Kinds[i] })
	if few := 1 + r.IntN(4); !every {
		p.Kinds = p.Kinds[:min(len(p.Kinds), few)]
	}
	slices.Sort(p.Kinds)

	p.Containers = append(p.Containers, containerPlan{
		ID: anchor, Group: anchorGroup, Ends: bySigterm,
		Runs: program{Piece: 64, Stay: -1, Code: 3, Sink: fifoSink},
	})
	for i := 1; i < containers; i++ {
		p.Containers = append(p.Containers, r.container(fmt.Sprintf("c%02d", i), p.Kinds))
	}
	if len(p.Kinds) > 0 {
		for i := range max(1, len(p.Containers)*2/3) {
			kind := p.Kinds[r.IntN(len(p.Kinds))]
			if every {
				kind = p.Kinds[i%len(p.Kinds)]
			}
			p.Faults = append(p.Faults, r.fault(p, kind))
		}
	}
	p.Faults = bounded(p.Faults)
	return p
}

// dice draws.
type dice struct{ *rand.Rand }

func (r dice) upTo(d time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(d/time.Millisecond)+1)) * time.Millisecond
}

func (r dice) chance(percent int) bool { return r.IntN(100) < percent }

func (r dice) container(id string, kinds []fault) containerPlan {
	c := containerPlan{ID: id, After: r.upTo(3 * time.Second), Runs: r.program(), Ends: byItself}
	switch n := r.IntN(100); {
	case n < 25:
		c.Group = anchorGroup
	case n < 40:
		c.Group = "group-1"
	case n < 50:
		c.Group = "group-2"
	}
	switch n := r.IntN(100); {
	case n < 15, slices.Contains(kinds, killLogger) && n < 60:
		c.Runs.Sink = loggerSink
	case n < 30:
		c.Runs.Sink, c.Runs.Err = fileSink, 0
	case n < 40:
		c.Runs.Sink = terminalSink
	}
	for i := range r.IntN(5) {
		e := execPlan{ID: fmt.Sprintf("%s-x%d", id, i), After: r.upTo(1500 * time.Millisecond), Runs: r.program()}
		e.Runs.Out, e.Runs.Err = e.Runs.Out/2, e.Runs.Err/2
		if r.chance(15) {
			e.Runs.Sink = terminalSink
		}
		c.Execs = append(c.Execs, e)
	}
	switch n := r.IntN(100); {
	case n < 20, len(c.Execs) > 0 && n < 60:
		c.Ends = bySigterm
	case n < 40, len(c.Execs) > 0 && n < 80:
		c.Ends = bySigkill
	}
	if c.Ends != byItself {
		c.Runs.Stay = -1
		c.EndsIn = r.upTo(2 * time.Second)
		c.Overlap = r.chance(40)
	}
	c.HostPID = r.chance(25)
	return c
}

func (r dice) program() program {
	pieces := []int64{64, 1000, 4096, 65536}
	p := program{
		Out: r.Int64N(200_000), Err: r.Int64N(60_000),
		Piece: pieces[r.IntN(len(pieces))],
		Stay:  r.upTo(300 * time.Millisecond),
		Code:  r.IntN(90),
		Sink:  fifoSink,
	}
	if r.chance(15) {
		p.Out, p.Err = 0, 0
	}
	if p.Piece < 1000 {
		p.Out, p.Err = p.Out/20, p.Err/20
	}
	// About a second of writing at most.
	writes := max(p.Out, p.Err)/p.Piece + 1
	p.Pause = (r.upTo(1200*time.Millisecond) / time.Duration(writes)).Truncate(time.Microsecond)
	return p
}

func (r dice) fault(p plan, kind fault) faultPlan {
	f := faultPlan{
		Kind:      kind,
		Container: p.Containers[r.IntN(len(p.Containers))].ID,
		At:        steps[r.IntN(len(steps))],
		After:     r.upTo(700 * time.Millisecond),
	}
	if r.chance(30) {
		f.After = 0
	}
	switch f.Kind {
	case killShim:
		// Seldom the anchor's: most others go with it.
		for r.chance(80) && p.container(f.Container).Group == anchorGroup {
			f.Container = p.Containers[r.IntN(len(p.Containers))].ID
		}
	case killContainerd:
		f.For = r.upTo(1200 * time.Millisecond)
	case killRuntime, slowRuntime:
		f.After = 0
		f.At = creating // the orders are there when the container comes to be
		verbs := []string{"create", "start", "delete", "exec"}
		f.Verb = verbs[r.IntN(len(verbs))]
		if f.Kind == slowRuntime {
			f.For, f.Kill = 100*time.Millisecond+r.upTo(1500*time.Millisecond), -1
		} else {
			f.Kill = []int{0, -2, 1 + r.IntN(5), 1 + r.IntN(30), 1 + r.IntN(80)}[r.IntN(5)]
		}
	case hastyCaller:
		f.At = creating
		verbs := []string{"create", "start", "delete", "exec"}
		f.Verb = verbs[r.IntN(len(verbs))]
		f.After = 0
		f.For = r.upTo(120 * time.Millisecond)
	case badConnection:
		f.Verb = rubbish[r.IntN(len(rubbish))]
		f.For = r.upTo(500 * time.Millisecond)
	case fullDisk:
		f.Verb = []string{"bundles", "logs"}[r.IntN(2)]
		f.For = r.upTo(700 * time.Millisecond)
	case freezeCgroup, goneReader, stopShim:
		f.For = r.upTo(600 * time.Millisecond)
	}
	return f
}

// bounded leaves out faults of which more would leave nothing to be checked.
func bounded(all []faultPlan) (list []faultPlan) {
	count := map[fault]int{}
	most := map[fault]int{killShim: 3, killContainerd: 2, fullDisk: 3}
	for _, f := range all {
		count[f.Kind]++
		if n, ok := most[f.Kind]; ok && count[f.Kind] > n {
			continue
		}
		list = append(list, f)
	}
	return list
}

func (p plan) container(id string) containerPlan {
	for _, c := range p.Containers {
		if c.ID == id {
			return c
		}
	}
	return containerPlan{}
}

func (p plan) execs() (n int) {
	for _, c := range p.Containers {
		n += len(c.Execs)
	}
	return n
}

// String tells what is planned, line by line.
func (p plan) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "seed %d, round %d: %v\n", p.Seed, p.Round, p.Kinds)
	for _, c := range p.Containers {
		fmt.Fprintf(&text, "  %s in shim %s after %s: %s, ends by %s", c.ID, c.shim(), c.After, c.Runs, c.Ends)
		if c.EndsIn > 0 {
			fmt.Fprintf(&text, " in %s", c.EndsIn)
		}
		if c.Overlap {
			text.WriteString(", its execs with it")
		}
		if c.HostPID {
			text.WriteString(", in the host's PID namespace")
		}
		text.WriteString("\n")
		for _, e := range c.Execs {
			fmt.Fprintf(&text, "    %s after %s: %s\n", e.ID, e.After, e.Runs)
		}
	}
	for _, f := range p.Faults {
		fmt.Fprintf(&text, "  %s\n", f)
	}
	return text.String()
}

func (p program) String() string {
	return fmt.Sprintf("%d + %d bytes to a %s, %d every %s, then %s, code %d", p.Out, p.Err, p.Sink, p.Piece, p.Pause, p.Stay, p.Code)
}
