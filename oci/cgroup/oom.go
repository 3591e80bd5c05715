package cgroup

// This file counts OOM kills.
//
// An event told by the kernel comes too late when the container dies at once,
// and on V1 it is also raised by a kill in a neighbour and by the removal of
// the cgroup. So counters decide, read at the moment when somebody asks, from a
// file that has been open since Load. What the kernel gives (observed on 6.18,
// mm/memcontrol.c):
//
//   - V2: memory.events "oom_kill" counts every process killed in the group and
//     in those nested in it, whoever's limit was hit; with memory.oom.group each
//     one of them.
//   - V1: memory.oom_control "oom_kill" (since Linux 4.13) counts the victims of
//     this very group only, so nested ones are added up here.
//   - Both: once the directory is removed, reading an open file fails with
//     ENODEV. What was not read before is lost; see suspect for what is left.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// burstGap is how long no process must be killed for a burst to be over.
	burstGap = 200 * time.Millisecond
	// burstMax bounds a burst: a container that is killed at all the time is
	// reported again and again, but not more often than this.
	burstMax = 2 * time.Second
	// suspectFor is how long a sign of an OOM kill counts once the counter
	// cannot be read any more.
	suspectFor = time.Second
)

// OOMState is what a Group knows about OOM kills.
type OOMState struct {
	// Kills is how many were counted, those before Load included.
	Kills uint64 `json:"kills"`
	// Reported is Kills at the last report, or at Load.
	Reported uint64 `json:"reported"`
	// Seen are the kernel's counters as last read, by path below the group, ""
	// for itself.
	Seen map[string]uint64 `json:"seen,omitempty"`

	// What is suspected at the moment, in oomCounter's words.
	BurstStart    time.Time `json:"burst_start,omitzero"`
	LastGrowth    time.Time `json:"last_growth,omitzero"`
	BurstReported bool      `json:"burst_reported,omitempty"`
	Sign          time.Time `json:"sign,omitzero"`
	Farewells     uint64    `json:"farewells,omitempty"`
	ParentKills   uint64    `json:"parent_kills,omitempty"`
	ParentKnown   bool      `json:"parent_known,omitempty"`
	Gone          bool      `json:"gone,omitempty"`
}

// oomCounter follows the kernel's counters of one group.
type oomCounter struct {
	mode   Mode
	dir    string // of the group in the hierarchy of the memory controller; "" if it has none
	parent string // memory.events of the group above, "" if that is no help

	mu    sync.Mutex // protects what follows
	file  *os.File   // memory.oom_control or memory.events; nil when it cannot be had
	known OOMState

	burstStart    time.Time
	lastGrowth    time.Time
	burstReported bool

	// For the case that the cgroup is removed before the counter is read.
	event       *os.File  // V1: the event descriptor of the watch, which owns it
	sign        time.Time // when the kernel last told of what may be a kill and has not been counted
	farewells   uint64    // V1: signals of the event descriptor since the removal
	parentKills uint64    // V2: counter of the group above when the own one was last read
	parentKnown bool
	gone        bool
}

// OOMKills returns how many processes of the group, and of groups nested in it,
// the kernel has killed for want of memory, those before Load included. Without
// a memory controller it is 0; when the cgroup is gone it is the last value
// known.
func (g *Group) OOMKills() (uint64, error) {
	c := &g.oom
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refresh()
	return c.known.Kills, err
}

// OOMSince tells whether processes were killed since Load or since it last
// looked. Kills that follow each other within 200 ms are one burst, for at most
// 2 s, and a burst is told once, whoever asks first. It never waits: ask it when
// a process of the container has been reaped, before the exit is told.
func (g *Group) OOMSince() (bool, error) {
	c := &g.oom
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refresh()
	if c.gone && c.file != nil && c.known.Kills == c.known.Reported {
		c.catchUp()
		err = c.refresh()
	}
	if !c.gone {
		// All that led to what the caller asks about has been counted by now;
		// a sign without a kill was a neighbour's.
		c.sign = time.Time{}
	}
	grown := c.known.Kills > c.known.Reported
	c.known.Reported = c.known.Kills
	if !grown || c.burstReported {
		return false, err
	}
	c.burstReported = true
	return true, err
}

// catchUp takes in what the kernel has told of a group that is gone, and the
// watch has not taken in yet. c.mu is held, but not all the time.
func (c *oomCounter) catchUp() {
	if c.event != nil {
		if raw, err := c.event.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { c.hear(int(fd)) })
		}
		return
	}
	// On V2 the telling leaves nothing that could be read afterwards. With one
	// P the watch is queued right behind us.
	c.mu.Unlock()
	runtime.Gosched()
	c.mu.Lock()
}

// hear reads the event descriptor of V1. Whoever does takes all that it has
// told since it was read last; heard is false if that is nothing. c.mu is held.
func (c *oomCounter) hear(fd int) (heard bool, err error) {
	var buf [8]byte
	for {
		_, err = unix.Read(fd, buf[:])
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.EAGAIN {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("read", err)
	}
	signals := binary.NativeEndian.Uint64(buf[:])
	var probe [1]byte
	if _, err := c.file.ReadAt(probe[:], 0); isGone(err) {
		// One of them is for the removal, and comes some time after it.
		c.farewells += signals
		signals = c.farewells - 1
	}
	if signals > 0 {
		c.sign = time.Now()
	}
	return true, nil
}

// open opens the counter's file, if it is there by now and not open yet.
func (c *oomCounter) open(g *Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil || c.gone {
		return
	}
	name := c.locate(g)
	if c.dir == "" {
		return
	}
	// On V2 the watch waits on this very file.
	fd, err := unix.Open(filepath.Join(c.dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		c.file = os.NewFile(uintptr(fd), name)
		unix.SetNonblock(fd, true) // as in package child
	}
}

// locate finds out where the counter is and how its file is called. c.mu is held.
func (c *oomCounter) locate(g *Group) (name string) {
	c.mode = g.mode
	c.dir = g.dir("")
	name = "memory.events"
	if g.mode == V1 {
		c.dir, name = g.dir("memory"), "memory.oom_control"
		if g.paths["memory"] == "/" {
			c.dir = "" // a container without a memory group of its own; the root's nested ones are the host
		}
	} else if above := filepath.Dir(c.dir); above != g.root && c.dir != g.root {
		c.parent = filepath.Join(above, name)
	}
	return name
}

// begin takes what has been killed so far for reported.
func (c *oomCounter) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == V1 && c.file != nil {
		// By another file: one that was read keeps a page in the kernel.
		if kills, ok := readOOMKill(filepath.Join(c.dir, "memory.oom_control")); ok {
			c.count("", kills)
			c.countNested()
		}
	} else {
		_ = c.refresh()
	}
	c.known.Reported = c.known.Kills
	c.burstReported = false
	c.lastGrowth = time.Time{}
}

func (c *oomCounter) restore(s OOMState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = OOMState{Kills: s.Kills, Reported: s.Reported, Seen: maps.Clone(s.Seen)}
	c.burstStart, c.lastGrowth, c.burstReported = s.BurstStart, s.LastGrowth, s.BurstReported
	c.sign, c.farewells = s.Sign, s.Farewells
	c.parentKills, c.parentKnown = s.ParentKills, s.ParentKnown
	c.gone = s.Gone
}

func (c *oomCounter) state() OOMState {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.refresh()
	s := c.known
	s.Seen = maps.Clone(s.Seen)
	s.BurstStart, s.LastGrowth, s.BurstReported = c.burstStart, c.lastGrowth, c.burstReported
	s.Sign, s.Farewells = c.sign, c.farewells
	s.ParentKills, s.ParentKnown = c.parentKills, c.parentKnown
	s.Gone = c.gone
	return s
}

func (c *oomCounter) close() {
	c.mu.Lock()
	file := c.file
	c.file = nil
	c.mu.Unlock()
	if file != nil {
		file.Close() // waits for the watch to be out of it, which may need c.mu
	}
}

// refresh reads the counters. c.mu is held.
func (c *oomCounter) refresh() error {
	if c.file == nil {
		return nil
	}
	var buf [512]byte
	n, err := c.file.ReadAt(buf[:], 0)
	switch {
	case isGone(err):
		c.gone = true
		c.suspect()
		return nil
	case err != nil && !errors.Is(err, io.EOF):
		return fmt.Errorf("read OOM counter of cgroup: %w", err)
	}
	kills, err := parseOOMKill(buf[:n])
	if err != nil {
		return fmt.Errorf("read OOM counter of cgroup: %w", err)
	}
	grown := c.count("", kills)
	if c.mode == V1 {
		grown = c.countNested() || grown
	} else if c.parent != "" {
		c.parentKills, c.parentKnown = readOOMKill(c.parent)
	}
	if grown {
		c.sign = time.Time{}
		c.grew()
	}
	return nil
}

// count takes in one group's counter and tells whether it has grown. A counter
// that is lower than before is that of a nested group made anew; our own group
// is not, so its counter is missing, and then nothing is known.
func (c *oomCounter) count(path string, kills uint64) bool {
	seen := c.known.Seen[path]
	if kills == seen || kills < seen && path == "" {
		return false
	}
	if kills < seen {
		seen = 0
	}
	if c.known.Seen == nil {
		c.known.Seen = make(map[string]uint64)
	}
	c.known.Seen[path] = kills
	c.known.Kills += kills - seen
	return kills > seen
}

// countNested takes in the counters of the groups nested in a V1 group.
func (c *oomCounter) countNested() (grown bool) {
	var st unix.Stat_t
	if err := unix.Lstat(c.dir, &st); err != nil || st.Nlink == 2 && len(c.known.Seen) == 0 {
		return false
	}
	present := map[string]bool{"": true}
	_ = walk(c.dir, func(dir string) error {
		if dir == c.dir {
			return nil
		}
		kills, ok := readOOMKill(filepath.Join(dir, "memory.oom_control"))
		if ok {
			path := strings.TrimPrefix(dir, c.dir)
			present[path] = true
			grown = c.count(path, kills) || grown
		}
		return nil
	})
	maps.DeleteFunc(c.known.Seen, func(path string, _ uint64) bool { return !present[path] })
	return grown
}

func (c *oomCounter) grew() {
	now := time.Now()
	if now.Sub(c.lastGrowth) > burstGap || now.Sub(c.burstStart) > burstMax {
		c.burstStart, c.burstReported = now, false
	}
	c.lastGrowth = now
}

// suspect decides, when the cgroup was removed before its counter could be read
// (systemd does that to a scope as soon as it is empty), whether there was a
// kill that nobody has seen. On V1 the event descriptor was signalled just
// before, or once more than for the removal. On V2 memory.events changed in the last second and the
// counter of the group above, which includes ours, has grown since our own was
// last read; the change alone would not do, nor would the growth. c.mu is held.
func (c *oomCounter) suspect() {
	if c.sign.IsZero() || time.Since(c.sign) > suspectFor {
		return
	}
	if c.mode == V2 {
		now, ok := readOOMKill(c.parent)
		if !ok || !c.parentKnown || now <= c.parentKills {
			return
		}
		c.parentKills = now
	}
	c.sign = time.Time{}
	c.known.Kills++
	c.grew()
}

func readOOMKill(path string) (kills uint64, ok bool) {
	if path == "" {
		return 0, false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	kills, err = parseOOMKill(b)
	return kills, err == nil
}

// parseOOMKill finds the counter among lines of "key value". Kernels before
// 4.13 have none; then it is 0.
func parseOOMKill(b []byte) (uint64, error) {
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, nil
}
