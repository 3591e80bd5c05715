package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// writing is one way in which a container writes.
type writing struct {
	metric   string
	block    int
	bytes    int64
	terminal bool
}

func measureOutput(b *bench) error {
	all := int64(b.n.megabyte) << 20
	ways := []writing{
		{"output-64k", 64 << 10, all, false},
		{"output-100", 100, all / 32, false},
		{"terminal", 4 << 10, all / 8, true},
	}
	// Many short ones: on a busy machine one of them says little.
	for range b.rounds(max(b.n.rounds/2, 1)) {
		for _, w := range ways {
			for _, c := range b.contenders {
				if err := b.write(c, w); err != nil {
					return fmt.Errorf("%s, %s: %w", w.metric, c.name, err)
				}
			}
			if w.terminal {
				continue
			}
			if err := b.writeByHand(w); err != nil {
				return fmt.Errorf("%s, %s: %w", w.metric, byHandName, err)
			}
		}
		if err := b.readByHand(ways[0]); err != nil {
			return err
		}
	}
	return nil
}

// all is how much it writes, in whole blocks.
func (w writing) all() int64 { return w.bytes / int64(w.block) * int64(w.block) }

// command is what writes, an applet of busybox.
func (w writing) command() []string {
	return []string{"dd", "if=/dev/zero", fmt.Sprintf("bs=%d", w.block), fmt.Sprintf("count=%d", w.all()/int64(w.block))}
}

// script is the same in a container. The pause keeps what Start costs out of what
// output costs.
func (w writing) script(busybox string) string {
	return "sleep 0.2; " + busybox + strings.Join(w.command(), " ") + " 2>/dev/null"
}

func (w writing) perGiB(used time.Duration) float64 {
	return used.Seconds() * float64(1<<30) / float64(w.all())
}

// write runs a container that writes, and reads it all.
func (b *bench) write(c contender, w writing) (err error) {
	// It remains until it is killed, so that the shim can be looked at when all is
	// written.
	script := w.script("") + "; exec sleep 1000000"
	var more []oci.SpecOpts
	var ends []cio.Opt
	if w.terminal {
		more, ends = append(more, oci.WithTTY), append(ends, cio.WithTerminal)
	}
	container, err := b.prepare(c, b.name("output"), []string{"sh", "-c", script}, more...)
	if err != nil {
		return err
	}
	ctx := b.context()
	taken := newMeter(w.all())
	task, err := container.NewTask(ctx, b.fifos(taken, ends...))
	if err != nil {
		return err
	}
	r := &running{Container: container, b: b, task: task}
	defer func() { err = errors.Join(err, r.end()) }()
	pid, err := b.shimPID(container.ID())
	if err != nil {
		return err
	}
	exits, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		return err
	}
	client := ownCPU()
	before, err := cpuOf(pid)
	if err != nil {
		return err
	}
	if err := taken.wait(ctx.Done(), exits); err != nil {
		return err
	}
	used := ownCPU() - client
	after, err := cpuOf(pid)
	if err != nil {
		return err
	}
	b.add(w.metric+".rate", c.name, taken.rate())
	b.add(w.metric+".cpu", c.name, w.perGiB(after-before))
	b.add(w.metric+".client", c.name, w.perGiB(used))
	return nil
}

// meter counts what it is given, and takes the time from the first byte to the
// last.
type meter struct {
	want, got   int64
	first, last time.Time
	full        chan struct{}
}

var _ io.Writer = (*meter)(nil)

func newMeter(want int64) *meter { return &meter{want: want, full: make(chan struct{})} }

func (m *meter) Write(p []byte) (int, error) {
	if m.got == 0 {
		m.first = time.Now()
	}
	before := m.got
	m.got += int64(len(p))
	if before < m.want && m.got >= m.want {
		m.last = time.Now()
		close(m.full)
	}
	return len(p), nil
}

func (m *meter) wait(done <-chan struct{}, exits <-chan containerd.ExitStatus) error {
	select {
	case <-m.full:
		return nil
	case status := <-exits:
		return fmt.Errorf("the container ended with %d before all was written", status.ExitCode())
	case <-done:
		return errors.New("interrupted")
	}
}

// rate is in MB/s.
func (m *meter) rate() float64 { return float64(m.want) / 1e6 / m.took().Seconds() }

func (m *meter) took() time.Duration { return max(m.last.Sub(m.first), time.Microsecond) }
