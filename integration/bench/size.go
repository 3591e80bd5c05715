package main

import "os"

func measureSize(b *bench) error {
	for _, c := range b.contenders {
		info, err := os.Stat(c.shim)
		if err != nil {
			return err
		}
		b.add("size.shim", c.name, float64(info.Size())/1e6)
	}
	return nil
}
