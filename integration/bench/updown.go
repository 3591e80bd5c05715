package main

import "time"

// measureUpDown starts a crowd of containers, 8 at a time, then ends it.
func measureUpDown(b *bench) error {
	for range b.rounds(max(b.n.rounds/40, 1)) {
		for _, c := range b.contenders[:2] {
			began := time.Now()
			all, err := b.startMany(c, b.n.crowd)
			up := time.Now()
			if undone := endMany(all); err == nil {
				err = undone
			}
			if err != nil {
				return err
			}
			b.add("updown.up", c.name, up.Sub(began).Seconds()*1e3/float64(b.n.crowd))
			b.add("updown.down", c.name, ms(time.Since(up))/float64(b.n.crowd))
			b.add("updown.total", c.name, ms(time.Since(began))/float64(b.n.crowd))
		}
	}
	return nil
}
