package shim

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// many is how many containers make a shim one whose heap is worth collecting
	// often: it then begins at 1 MiB, not at 4, and is not scattered over as many
	// pages. For fewer, the first collection costs more memory than it saves.
	many        = 8
	manyPercent = 25
	// restTime is for how long nothing has been done when a burst is over.
	restTime = 2 * time.Second
	// burst is how many bytes a shim allocates that has served some dozens of
	// operations. What is less is not worth a collection, which makes a small heap
	// larger.
	burst = 1 << 20
)

// collectOften is called when there are many containers.
var collectOften = sync.OnceFunc(func() { debug.SetGCPercent(manyPercent) })

// rest gives memory back to the kernel after many operations, once. Go collects
// no heap below 4 MiB, so that a shim of many containers would keep what it needed
// to make them.
type rest struct {
	mu    sync.Mutex // guards what follows
	timer *time.Timer
	was   uint64 // bytes allocated in all when memory was given back last
}

// after tells that an operation has ended, in a shim of so many containers.
func (r *rest) after(containers int) {
	if containers >= many {
		collectOften()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		r.timer = time.AfterFunc(restTime, r.giveBack)
		return
	}
	r.timer.Reset(restTime)
}

func (r *rest) giveBack() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.mu.Lock()
	much := m.TotalAlloc-r.was >= burst
	if much {
		r.was = m.TotalAlloc
	}
	r.mu.Unlock()
	if much {
		debug.FreeOSMemory()
	}
}
