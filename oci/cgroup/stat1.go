package cgroup

// This file reads what a group on V1 uses (Documentation/admin-guide/cgroup-v1).

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
)

// counted are the V1 controllers that have a part in a sample.
var counted = [...]struct {
	name string
	// first is the file of the controller that goes first when a group is
	// removed: as long as it is there, what is missing has never been.
	first string
	read  func(*reader, *metrics1.Metrics) error
}{
	{"memory", "memory.usage_in_bytes", readMemory},
	{"pids", "pids.max", readPIDs},
	{"cpuacct", "cpuacct.usage", readUsage},
	{"cpu", "cpu.shares", readThrottling},
	{"blkio", "blkio.reset_stats", readBlkIO},
	{"rdma", "rdma.max", readRdma},
	{"hugetlb", "cgroup.procs", readHugetlb},
}

// onlyOfRoots is a file that the root of each hierarchy has and no other group. A
// root is never gone, and lacks pids.max and others of the files that go first: an
// ordinary user's containers may be in it.
const onlyOfRoots = "release_agent"

// readV1 reads a controller as far as its files are there and may be read. The
// hierarchies are removed one after the other, and a sample of what is left
// half-way would hide the last whole one: so one in which something is gone is
// none.
func (g *Group) readV1() (*metrics1.Metrics, error) {
	m := &metrics1.Metrics{CPU: &metrics1.CPUStat{Usage: &metrics1.CPUUsage{}, Throttling: &metrics1.Throttle{}}}
	var r reader
	known := false
	for _, c := range counted {
		dir := g.dir(c.name)
		if dir == "" {
			continue
		}
		known = true
		err := r.enter(dir)
		gone := isGone(err)
		if err == nil {
			err = c.read(&r, m)
			gone = isGone(err) && !r.has(c.first) && !r.has(onlyOfRoots)
			r.leave()
		}
		if gone {
			return nil, g.goneError()
		}
		if err != nil && !isGone(err) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	if !known {
		return m, g.there()
	}
	return m, nil
}

// number reads a file that has one. Unlimited is 0 on V1.
func (r *reader) number(name string, v *uint64) error {
	text, err := r.read(name)
	if err != nil {
		return err
	}
	if *v, err = single(text, 0); err != nil {
		return r.failed("parse", name, err)
	}
	return nil
}

func (r *reader) pairs(name string, found func(key []byte, v uint64)) error {
	text, err := r.read(name)
	if err != nil {
		return err
	}
	if err := eachPair(text, found); err != nil {
		return r.failed("parse", name, err)
	}
	return nil
}

func readPIDs(r *reader, m *metrics1.Metrics) error {
	var p metrics1.PidsStat
	if err := r.number("pids.current", &p.Current); err != nil {
		return err
	}
	if err := r.number("pids.max", &p.Limit); err != nil {
		return err
	}
	m.Pids = &p
	return nil
}

func readUsage(r *reader, m *metrics1.Metrics) error {
	var u metrics1.CPUUsage
	var user, system bool
	err := r.pairs("cpuacct.stat", func(key []byte, v uint64) {
		const tick = 1_000_000_000 / 100 // ns; USER_HZ is 100 everywhere
		switch string(key) {
		case "user":
			u.User, user = v*tick, true
		case "system":
			u.Kernel, system = v*tick, true
		}
	})
	if err == nil && (!user || !system) {
		err = r.failed("parse", "cpuacct.stat", errFormat)
	}
	if err != nil {
		return err
	}
	if err := r.number("cpuacct.usage", &u.Total); err != nil {
		return err
	}
	text, err := r.read("cpuacct.usage_percpu")
	if err != nil {
		return err
	}
	u.PerCPU = make([]uint64, 0, 1+bytes.Count(text, []byte(" ")))
	for {
		var field []byte
		if field, text = nextField(text); len(field) == 0 {
			break
		}
		v, err := unsigned(field)
		if err != nil {
			return r.failed("parse", "cpuacct.usage_percpu", err)
		}
		u.PerCPU = append(u.PerCPU, v)
	}
	m.CPU.Usage = &u
	return nil
}

func readThrottling(r *reader, m *metrics1.Metrics) error {
	t := m.CPU.Throttling
	return r.pairs("cpu.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "nr_periods":
			t.Periods = v
		case "nr_throttled":
			t.ThrottledPeriods = v
		case "throttled_time":
			t.ThrottledTime = v
		}
	})
}

// memoryFiles are those of the four things that a group is charged for. A kernel
// that does not count swap has none of the second.
var memoryFiles = [...][4]string{
	{"memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt", "memory.limit_in_bytes"},
	{"memory.memsw.usage_in_bytes", "memory.memsw.max_usage_in_bytes", "memory.memsw.failcnt", "memory.memsw.limit_in_bytes"},
	{"memory.kmem.usage_in_bytes", "memory.kmem.max_usage_in_bytes", "memory.kmem.failcnt", "memory.kmem.limit_in_bytes"},
	{"memory.kmem.tcp.usage_in_bytes", "memory.kmem.tcp.max_usage_in_bytes", "memory.kmem.tcp.failcnt", "memory.kmem.tcp.limit_in_bytes"},
}

func readMemory(r *reader, m *metrics1.Metrics) error {
	text, err := r.read("memory.stat")
	if err != nil {
		return err
	}
	mem := &metrics1.MemoryStat{
		Usage: new(metrics1.MemoryEntry), Swap: new(metrics1.MemoryEntry),
		Kernel: new(metrics1.MemoryEntry), KernelTCP: new(metrics1.MemoryEntry),
	}
	m.Memory = mem
	if err := eachPair(text, func(key []byte, v uint64) { setMemory(mem, key, v) }); err != nil {
		return r.failed("parse", "memory.stat", err)
	}
	if text, err = r.read("memory.oom_control"); err != nil {
		return err
	}
	oom := new(metrics1.MemoryOomControl)
	m.MemoryOomControl = oom
	err = eachPair(text, func(key []byte, v uint64) {
		switch string(key) {
		case "oom_kill_disable":
			oom.OomKillDisable = v
		case "under_oom":
			oom.UnderOom = v
		case "oom_kill":
			oom.OomKill = v
		}
	})
	if err != nil {
		return r.failed("parse", "memory.oom_control", err)
	}
	for i, e := range [...]*metrics1.MemoryEntry{mem.Usage, mem.Swap, mem.Kernel, mem.KernelTCP} {
		for j, v := range [...]*uint64{&e.Usage, &e.Max, &e.Failcnt, &e.Limit} {
			err := r.number(memoryFiles[i][j], v)
			if err != nil && e == mem.Swap && j == 0 && isGone(err) && r.has(memoryFiles[0][0]) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// setMemory takes a line of memory.stat.
func setMemory(m *metrics1.MemoryStat, key []byte, v uint64) {
	switch string(key) {
	case "cache":
		m.Cache = v
	case "rss":
		m.RSS = v
	case "rss_huge":
		m.RSSHuge = v
	case "mapped_file":
		m.MappedFile = v
	case "dirty":
		m.Dirty = v
	case "writeback":
		m.Writeback = v
	case "pgpgin":
		m.PgPgIn = v
	case "pgpgout":
		m.PgPgOut = v
	case "pgfault":
		m.PgFault = v
	case "pgmajfault":
		m.PgMajFault = v
	case "inactive_anon":
		m.InactiveAnon = v
	case "active_anon":
		m.ActiveAnon = v
	case "inactive_file":
		m.InactiveFile = v
	case "active_file":
		m.ActiveFile = v
	case "unevictable":
		m.Unevictable = v
	case "hierarchical_memory_limit":
		m.HierarchicalMemoryLimit = v
	case "hierarchical_memsw_limit":
		m.HierarchicalSwapLimit = v
	case "total_cache":
		m.TotalCache = v
	case "total_rss":
		m.TotalRSS = v
	case "total_rss_huge":
		m.TotalRSSHuge = v
	case "total_mapped_file":
		m.TotalMappedFile = v
	case "total_dirty":
		m.TotalDirty = v
	case "total_writeback":
		m.TotalWriteback = v
	case "total_pgpgin":
		m.TotalPgPgIn = v
	case "total_pgpgout":
		m.TotalPgPgOut = v
	case "total_pgfault":
		m.TotalPgFault = v
	case "total_pgmajfault":
		m.TotalPgMajFault = v
	case "total_inactive_anon":
		m.TotalInactiveAnon = v
	case "total_active_anon":
		m.TotalActiveAnon = v
	case "total_inactive_file":
		m.TotalInactiveFile = v
	case "total_active_file":
		m.TotalActiveFile = v
	case "total_unevictable":
		m.TotalUnevictable = v
	}
}

func readRdma(r *reader, m *metrics1.Metrics) error {
	entries := func(name string) (list []*metrics1.RdmaEntry, lines int, err error) {
		text, err := r.read(name)
		rdma(text, func(device string, handles, objects uint32) {
			list = append(list, &metrics1.RdmaEntry{Device: device, HcaHandles: handles, HcaObjects: objects})
		})
		return list, bytes.Count(text, []byte("\n")), err
	}
	current, used, err := entries("rdma.current")
	if err != nil {
		return err
	}
	limit, limited, err := entries("rdma.max")
	if err != nil {
		return err
	}
	if used == limited { // else a device has come or gone between the two
		m.Rdma = &metrics1.RdmaStat{Current: current, Limit: limit}
	}
	return nil
}

func readHugetlb(r *reader, m *metrics1.Metrics) error {
	for _, size := range hugePages().sorted {
		s := &metrics1.HugetlbStat{Pagesize: size}
		for _, f := range [...]struct {
			name string
			v    *uint64
		}{{"usage_in_bytes", &s.Usage}, {"max_usage_in_bytes", &s.Max}, {"failcnt", &s.Failcnt}} {
			if err := r.number(fmt.Sprintf("hugetlb.%s.%s", size, f.name), f.v); err != nil {
				return err
			}
		}
		m.Hugetlb = append(m.Hugetlb, s)
	}
	return nil
}
