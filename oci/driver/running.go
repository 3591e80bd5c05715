package driver

import (
	"slices"
	"sync"
	"time"
)

// This file knows which calls are under way, for whoever wants to know what a
// container is waiting for.

// Running is a call to an OCI runtime that has not ended.
type Running struct {
	Operation string
	Container string
	Began     time.Time
}

// underWay are the calls of the whole process.
var underWay calls

type calls struct {
	mu    sync.Mutex // guards what follows
	total uint64
	list  []*call
}

// add enters a call and numbers it.
func (u *calls) add(c *call) uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.total++
	u.list = append(u.list, c)
	return u.total
}

func (u *calls) remove(c *call) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.list = slices.DeleteFunc(u.list, func(other *call) bool { return other == c })
	if len(u.list) == 0 {
		u.list = nil
	}
}

// Calls returns the calls under way, the oldest first, and how many were ever
// begun.
func Calls() (running []Running, total uint64) {
	u := &underWay
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.list {
		running = append(running, Running{Operation: c.operation, Container: c.container, Began: c.began})
	}
	return running, u.total
}
