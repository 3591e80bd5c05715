package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
)

// settleTime is how long memory must have been the same until it is measured: a
// shim gives back what it needed for a burst a little later.
const settleTime = 4 * time.Second

// measureMemory runs idle containers, each with a shim of its own, then all in
// one. It is the same however busy the machine is.
func measureMemory(b *bench) error {
	for _, c := range b.contenders {
		if err := b.idleAlone(c); err != nil {
			return err
		}
		if err := b.idleGrouped(c); err != nil {
			return err
		}
	}
	return nil
}

// crowdOf starts containers until there are as many as each of sizes says, and
// calls look at each.
func (b *bench) crowdOf(c contender, sizes []int, look func([]*running) error, more ...oci.SpecOpts) (err error) {
	var all []*running
	defer func() { err = errors.Join(err, endMany(all)) }()
	for _, n := range sizes {
		// A group's shim is that of its first container.
		if len(all) == 0 {
			first, err := b.startMany(c, 1, more...)
			all = append(all, first...)
			if err != nil {
				return err
			}
		}
		grown, err := b.startMany(c, n-len(all), more...)
		all = append(all, grown...)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.progress, "        %s, %d containers with %s\n", c.name, n, sharing(all))
		if err := b.settle(); err != nil {
			return err
		}
		if err := look(all); err != nil {
			return err
		}
	}
	return nil
}

// sharing tells how many shims there are, for who waits.
func sharing(all []*running) string {
	if all[0].pid == all[len(all)-1].pid {
		return "one shim"
	}
	return "a shim each"
}

func (b *bench) settle() error {
	wait := settleTime
	switch b.form {
	case "tiny":
		return nil
	case "quick":
		wait /= 2
	}
	select {
	case <-time.After(wait):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

func (b *bench) idleAlone(c contender) error {
	return b.crowdOf(c, b.n.idle, func(all []*running) error {
		for _, r := range all {
			f, err := footprintOf(r.pid)
			if err != nil {
				return err
			}
			prefix := fmt.Sprintf("memory-%d.", len(all))
			b.add(prefix+"private", c.name, f.private)
			b.add(prefix+"written", c.name, f.dirty)
			b.add(prefix+"rss", c.name, f.rss)
			b.add(prefix+"pss", c.name, f.pss)
			b.add(prefix+"threads", c.name, f.threads)
		}
		return nil
	})
}

// idleGrouped tells what each container but the first adds to the one shim, without
// the pages of the program, which are private to the only process that runs it.
func (b *bench) idleGrouped(c contender) error {
	group := oci.WithAnnotations(map[string]string{"io.containerd.runc.v2.group": b.name("group")})
	var one float64
	return b.crowdOf(c, b.n.idle, func(all []*running) error {
		if slices.ContainsFunc(all, func(r *running) bool { return r.pid != all[0].pid }) {
			if c.name != cleat { // it loses the race with a leader that is slow to answer
				b.results.leaveOut(b.progress, "grouped "+c.name, "a group got more than one shim")
				return nil
			}
			return fmt.Errorf("%s: a group has more than one shim", c.name)
		}
		f, err := footprintOf(all[0].pid)
		if err != nil {
			return err
		}
		if len(all) == 1 {
			one = f.dirty
			return nil
		}
		b.add(fmt.Sprintf("grouped-%d.each", len(all)), c.name, (f.dirty-one)/float64(len(all)-1))
		b.add(fmt.Sprintf("grouped-%d.private", len(all)), c.name, f.private)
		b.add(fmt.Sprintf("grouped-%d.written", len(all)), c.name, f.dirty)
		b.add(fmt.Sprintf("grouped-%d.threads", len(all)), c.name, f.threads)
		return nil
	}, group)
}
