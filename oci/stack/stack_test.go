package stack

import (
	"runtime"
	"sync"
	"testing"
)

// inUse is the memory of all stacks.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.StackInuse
}

// Of a thousand goroutines each has what it asked for, and about no more.
func TestStackIsTaken(t *testing.T) {
	const goroutines = 1000
	for _, c := range []struct {
		name string
		take func()
		size uint64
	}{
		{"8K", Take8K, 8 << 10},
		{"16K", Take16K, 16 << 10},
		{"32K", Take32K, 32 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			runtime.GC() // gives back what those before had
			before := inUse()
			taken, end := make(chan struct{}), make(chan struct{})
			var all sync.WaitGroup
			defer all.Wait()
			defer close(end)
			for range goroutines {
				all.Go(func() {
					c.take()
					taken <- struct{}{}
					<-end
				})
			}
			for range goroutines {
				<-taken
			}
			each := (inUse() - before) / goroutines
			if each < c.size*9/10 || each > c.size*5/4 {
				t.Errorf("each has %d bytes, want %d", each, c.size)
			}
		})
	}
}

func BenchmarkDeep(b *testing.B) {
	for _, c := range []struct {
		name string
		take func()
	}{{"as-go-does", func() {}}, {"taken", Take16K}} {
		b.Run(c.name, func(b *testing.B) {
			done := make(chan int)
			for b.Loop() {
				go func() {
					c.take()
					done <- deep(30)
				}()
				<-done
			}
		})
	}
}

// deep has frames like those of an operation.
//
//go:noinline
func deep(n int) int {
	var frame [256]byte
	if n == 0 {
		return 0
	}
	frame[n] = byte(n)
	return deep(n-1) + int(frame[n])
}
