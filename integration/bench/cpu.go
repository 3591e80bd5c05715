package main

import "errors"

// measureCPU takes containers through their lives without containerd.
func measureCPU(b *bench) error {
	sink, err := b.takeEvents()
	if err != nil {
		return err
	}
	defer sink.Stop()
	return adopting(func() error {
		for round := range b.rounds(b.n.rounds) {
			for _, c := range shuffled(b.contenders, round) {
				l, start, err := b.newLone(c, sink, []string{"true"})
				if err != nil {
					return err
				}
				err = l.run()
				if err == nil {
					err = l.finish()
				}
				if err != nil {
					_, undone := l.remove()
					return errors.Join(err, undone)
				}
				used, err := l.gone(b.ctx)
				removed, undone := l.remove()
				if err := errors.Join(err, undone); err != nil {
					return err
				}
				b.addTime("cpu.start", c.name, start)
				b.addTime("cpu.daemon", c.name, used.own)
				b.addTime("cpu.runtime", c.name, used.children)
				b.addTime("cpu.delete", c.name, removed)
				b.addTime("cpu.total", c.name, start+used.own+used.children+removed)
			}
		}
		return nil
	})
}
