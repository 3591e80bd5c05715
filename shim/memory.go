package shim

import (
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
	// burst is how many operations are worth a collection.
	burst = 64
)

// collectOften is called when there are many containers.
var collectOften = sync.OnceFunc(func() { debug.SetGCPercent(manyPercent) })

// rest gives memory back to the kernel after many operations, once. Go collects
// no heap below 4 MiB, so that a shim of many containers would keep what it needed
// to make them.
type rest struct {
	mu         sync.Mutex // guards what follows
	timer      *time.Timer
	operations int // since memory was given back last
}

// after tells that an operation has ended, in a shim of so many containers. That of
// one container is left alone: its first collection would make it half as large
// again.
func (r *rest) after(containers int) {
	if containers >= many {
		collectOften()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.operations++; r.operations < burst {
		return
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(restTime, r.giveBack)
		return
	}
	r.timer.Reset(restTime)
}

func (r *rest) giveBack() {
	r.mu.Lock()
	r.operations = 0
	r.mu.Unlock()
	debug.FreeOSMemory()
}
