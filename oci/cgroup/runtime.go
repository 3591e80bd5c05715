package cgroup

import (
	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
	"github.com/cleatrun/cleat/oci/cgroup/metrics2"
	"github.com/containerd/cgroups/v3"
	"github.com/containerd/go-runc"
)

// OfRuntime is what an OCI runtime says that a container uses which has no
// cgroup on this host, in the message that Stat has here.
func OfRuntime(s *runc.Stats) *Sample {
	if cgroups.Mode() == cgroups.Unified {
		const microsecond = 1000
		return sample2(&metrics2.Metrics{
			Pids: &metrics2.PidsStat{Current: s.Pids.Current, Limit: s.Pids.Limit},
			CPU: &metrics2.CPUStat{
				UsageUsec:     s.Cpu.Usage.Total / microsecond,
				UserUsec:      s.Cpu.Usage.User / microsecond,
				SystemUsec:    s.Cpu.Usage.Kernel / microsecond,
				NrPeriods:     s.Cpu.Throttling.Periods,
				NrThrottled:   s.Cpu.Throttling.ThrottledPeriods,
				ThrottledUsec: s.Cpu.Throttling.ThrottledTime / microsecond,
			},
			Memory: &metrics2.MemoryStat{
				Usage:        s.Memory.Usage.Usage,
				UsageLimit:   s.Memory.Usage.Limit,
				MaxUsage:     s.Memory.Usage.Max,
				SwapUsage:    s.Memory.Swap.Usage,
				SwapLimit:    s.Memory.Swap.Limit,
				File:         s.Memory.Cache,
				InactiveFile: s.Memory.Raw["inactive_file"],
			},
		})
	}
	entry := func(m runc.MemoryEntry) *metrics1.MemoryEntry {
		return &metrics1.MemoryEntry{Limit: m.Limit, Usage: m.Usage, Max: m.Max, Failcnt: m.Failcnt}
	}
	return sample1(&metrics1.Metrics{
		Pids: &metrics1.PidsStat{Current: s.Pids.Current, Limit: s.Pids.Limit},
		CPU: &metrics1.CPUStat{
			Usage: &metrics1.CPUUsage{Total: s.Cpu.Usage.Total, Kernel: s.Cpu.Usage.Kernel, User: s.Cpu.Usage.User, PerCPU: s.Cpu.Usage.Percpu},
			Throttling: &metrics1.Throttle{
				Periods: s.Cpu.Throttling.Periods, ThrottledPeriods: s.Cpu.Throttling.ThrottledPeriods, ThrottledTime: s.Cpu.Throttling.ThrottledTime,
			},
		},
		Memory: &metrics1.MemoryStat{
			Cache: s.Memory.Cache, Usage: entry(s.Memory.Usage), Swap: entry(s.Memory.Swap), Kernel: entry(s.Memory.Kernel), KernelTCP: entry(s.Memory.KernelTCP),
			TotalInactiveFile: s.Memory.Raw["total_inactive_file"],
		},
	})
}
