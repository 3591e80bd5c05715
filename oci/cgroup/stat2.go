package cgroup

// This file reads what a group on V2 uses (Documentation/admin-guide/cgroup-v2.rst).
// A controller that the group does not have counts zeros.

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"strconv"

	"github.com/cleatrun/cleat/oci/cgroup/metrics2"
)

func (g *Group) readV2() (*metrics2.Metrics, error) {
	var r reader
	err := r.enter(g.dir(""))
	if isGone(err) {
		return nil, g.goneError()
	}
	if err != nil {
		return nil, err
	}
	defer r.leave()
	m, err := r.metrics2()
	if err != nil && !isGone(err) {
		return nil, err
	}
	if !r.current() {
		return nil, g.goneError()
	}
	return m, err
}

func (r *reader) metrics2() (m *metrics2.Metrics, err error) {
	m = &metrics2.Metrics{Pids: &metrics2.PidsStat{Current: r.limit("pids.current"), Limit: r.limit("pids.max")}}
	if m.CPU, err = r.cpu(); err != nil {
		return nil, err
	}
	if m.Memory, err = r.memory(); err != nil {
		return nil, err
	}
	if m.MemoryEvents, err = r.memoryEvents(); err != nil {
		return nil, err
	}
	m.Io = &metrics2.IOStat{Usage: r.io(), PSI: r.pressure("io.pressure")}
	m.Rdma = &metrics2.RdmaStat{Current: r.rdma("rdma.current"), Limit: r.rdma("rdma.max")}
	for _, size := range hugePages().listed {
		prefix := "hugetlb." + size
		m.Hugetlb = append(m.Hugetlb, &metrics2.HugeTlbStat{
			Max: r.limit(prefix + ".max"), Current: r.limit(prefix + ".current"), Pagesize: size,
			Failcnt: r.events(prefix+".events", "max"),
		})
	}
	return m, nil
}

// limit reads a file that has one number. It is 0 where there is none, and
// the largest number where it is "max".
func (r *reader) limit(name string) uint64 {
	text, err := r.read(name)
	if err != nil {
		return 0
	}
	v, _ := single(text, math.MaxUint64)
	return v
}

// events reads the number of a key in a file, 0 if it has none.
func (r *reader) events(name, wanted string) uint64 {
	text, err := r.read(name)
	if err != nil {
		return 0
	}
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		if key, value, ok := pair(line); ok && string(key) == wanted {
			v, _ := number(value, 64)
			return v
		}
	}
	return 0
}

func (r *reader) cpu() (*metrics2.CPUStat, error) {
	c := new(metrics2.CPUStat)
	err := r.pairs("cpu.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "usage_usec":
			c.UsageUsec = v
		case "user_usec":
			c.UserUsec = v
		case "system_usec":
			c.SystemUsec = v
		case "nr_periods":
			c.NrPeriods = v
		case "nr_throttled":
			c.NrThrottled = v
		case "throttled_usec":
			c.ThrottledUsec = v
		case "nr_bursts":
			c.NrBursts = v
		case "burst_usec":
			c.BurstUsec = v
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	c.PSI = r.pressure("cpu.pressure")
	return c, nil
}

func (r *reader) memory() (*metrics2.MemoryStat, error) {
	m := new(metrics2.MemoryStat)
	err := r.pairs("memory.stat", func(key []byte, v uint64) { setMemory2(m, key, v) })
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.Usage, m.UsageLimit, m.MaxUsage = r.limit("memory.current"), r.limit("memory.max"), r.limit("memory.peak")
	m.SwapUsage, m.SwapLimit, m.SwapMaxUsage = r.limit("memory.swap.current"), r.limit("memory.swap.max"), r.limit("memory.swap.peak")
	m.PSI = r.pressure("memory.pressure")
	return m, nil
}

// setMemory2 takes a line of memory.stat.
func setMemory2(m *metrics2.MemoryStat, key []byte, v uint64) {
	switch string(key) {
	case "anon":
		m.Anon = v
	case "file":
		m.File = v
	case "kernel_stack":
		m.KernelStack = v
	case "slab":
		m.Slab = v
	case "sock":
		m.Sock = v
	case "shmem":
		m.Shmem = v
	case "file_mapped":
		m.FileMapped = v
	case "file_dirty":
		m.FileDirty = v
	case "file_writeback":
		m.FileWriteback = v
	case "anon_thp":
		m.AnonThp = v
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
	case "slab_reclaimable":
		m.SlabReclaimable = v
	case "slab_unreclaimable":
		m.SlabUnreclaimable = v
	case "pgfault":
		m.Pgfault = v
	case "pgmajfault":
		m.Pgmajfault = v
	case "workingset_refault":
		m.WorkingsetRefault = v
	case "workingset_activate":
		m.WorkingsetActivate = v
	case "workingset_nodereclaim":
		m.WorkingsetNodereclaim = v
	case "pgrefill":
		m.Pgrefill = v
	case "pgscan":
		m.Pgscan = v
	case "pgsteal":
		m.Pgsteal = v
	case "pgactivate":
		m.Pgactivate = v
	case "pgdeactivate":
		m.Pgdeactivate = v
	case "pglazyfree":
		m.Pglazyfree = v
	case "pglazyfreed":
		m.Pglazyfreed = v
	case "thp_fault_alloc":
		m.ThpFaultAlloc = v
	case "thp_collapse_alloc":
		m.ThpCollapseAlloc = v
	}
}

// memoryEvents is nil where there are none.
func (r *reader) memoryEvents() (*metrics2.MemoryEvents, error) {
	var e *metrics2.MemoryEvents
	err := r.pairs("memory.events", func(key []byte, v uint64) {
		if e == nil {
			e = new(metrics2.MemoryEvents)
		}
		switch string(key) {
		case "low":
			e.Low = v
		case "high":
			e.High = v
		case "max":
			e.Max = v
		case "oom":
			e.Oom = v
		case "oom_kill":
			e.OomKill = v
		case "oom_group_kill":
			e.OomGroupKill = v
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

// io reads lines of a disk and its counters:
//
//	8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0
//
// What follows a line whose disk has no numbers does not count.
func (r *reader) io() (list []*metrics2.IOEntry) {
	text, err := r.read("io.stat")
	if err != nil {
		return nil
	}
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		disk, counters, some := bytes.Cut(line, []byte(" "))
		first, second, isDisk := bytes.Cut(disk, []byte(":"))
		if !some || !isDisk || bytes.IndexByte(second, ':') >= 0 {
			continue
		}
		e := new(metrics2.IOEntry)
		if e.Major, err = unsigned(first); err != nil {
			return list
		}
		if e.Minor, err = unsigned(second); err != nil {
			return list
		}
		for more := true; more; {
			var counter []byte
			counter, counters, more = bytes.Cut(counters, []byte(" "))
			key, value, _ := bytes.Cut(counter, []byte("="))
			v, err := unsigned(value)
			if err != nil {
				continue
			}
			switch string(key) {
			case "rbytes":
				e.Rbytes = v
			case "wbytes":
				e.Wbytes = v
			case "rios":
				e.Rios = v
			case "wios":
				e.Wios = v
			}
		}
		list = append(list, e)
	}
	return list
}

func (r *reader) rdma(name string) (list []*metrics2.RdmaEntry) {
	text, err := r.read(name)
	if err != nil {
		return nil
	}
	rdma(text, func(device string, handles, objects uint32) {
		list = append(list, &metrics2.RdmaEntry{Device: device, HcaHandles: handles, HcaObjects: objects})
	})
	return list
}

// pressure reads how long processes have waited (Documentation/accounting/psi.rst).
// It is nil where the kernel does not count that.
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
func (r *reader) pressure(name string) *metrics2.PSIStats {
	text, err := r.read(name)
	if err != nil {
		return nil
	}
	p := new(metrics2.PSIStats)
	for line := []byte(nil); len(text) > 0; {
		line, text = nextLine(text)
		who, line := nextField(line)
		d := new(metrics2.PSIData)
		switch string(who) {
		case "some":
			p.Some = d
		case "full":
			p.Full = d
		default:
			continue
		}
		if !setPressure(d, line) {
			return nil
		}
	}
	return p
}

// setPressure tells whether a line could be read.
func setPressure(d *metrics2.PSIData, line []byte) bool {
	for {
		var field []byte
		if field, line = nextField(line); len(field) == 0 {
			return true
		}
		key, value, ok := bytes.Cut(field, []byte("="))
		if !ok {
			return false
		}
		var average *float64
		var err error
		switch string(key) {
		case "avg10":
			average = &d.Avg10
		case "avg60":
			average = &d.Avg60
		case "avg300":
			average = &d.Avg300
		case "total":
			d.Total, err = unsigned(value)
		}
		if average != nil {
			*average, err = strconv.ParseFloat(string(value), 64)
		}
		if err != nil {
			return false
		}
	}
}
