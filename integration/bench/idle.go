package main

import "time"

// measureIdle watches the shims of all contenders at once for a while in which
// nobody wants anything from them.
func measureIdle(b *bench) error {
	return b.each(b.contenders, forever, func(all map[string]*running) error {
		if err := b.settle(); err != nil {
			return err
		}
		before := map[string]int{}
		for name, r := range all {
			n, err := switches(r.pid)
			if err != nil {
				return err
			}
			before[name] = n
		}
		began := time.Now()
		select {
		case <-time.After(b.n.window):
		case <-b.ctx.Done():
			return b.ctx.Err()
		}
		for name, r := range all {
			n, err := switches(r.pid)
			if err != nil {
				return err
			}
			b.add("idle.wakeups", name, float64(n-before[name])*time.Minute.Seconds()/time.Since(began).Seconds())
		}
		return nil
	})
}
