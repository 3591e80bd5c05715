package cri

import (
	"fmt"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container uses comes to the kubelet, by itself and as a part of what
// its pod uses.
func TestStats(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "stats", own)
	const held = 24 << 20
	c := p.run("busy", []string{"sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/dev/shm/held; echo ready; while :; do :; done", held)})
	idle := p.run("idle", forever)
	c.wrote("ready")

	began := time.Now()
	var stats *cri.ContainerStats
	eventually(t, func() error {
		answer, err := p.runtime().ContainerStats(p.ctx, &cri.ContainerStatsRequest{ContainerId: c.id})
		if err != nil {
			return err
		}
		stats = answer.Stats
		if used := stats.GetCpu().GetUsageCoreNanoSeconds().GetValue(); used < 100e6 {
			return fmt.Errorf("it has used %d ns of processors", used)
		}
		return nil
	})
	var rate uint64
	eventually(t, func() error { // only this answer has a rate, and only after two looks
		answer, err := p.runtime().ListContainerStats(p.ctx, &cri.ListContainerStatsRequest{Filter: &cri.ContainerStatsFilter{Id: c.id}})
		if err != nil || len(answer.Stats) != 1 {
			return fmt.Errorf("statistics of one container: %v, %v", answer, err)
		}
		if rate = answer.Stats[0].GetCpu().GetUsageNanoCores().GetValue(); rate == 0 {
			return fmt.Errorf("it uses no processor at the moment: %v", answer.Stats[0])
		}
		return nil
	})
	if id := stats.GetAttributes().GetId(); id != c.id {
		t.Errorf("the statistics are those of %s, want %s", id, c.id)
	}
	if rate > 1.5e9 {
		t.Errorf("a loop uses %d billionth of a processor", rate)
	}
	if stats.Cpu.Timestamp < began.Add(-time.Minute).UnixNano() {
		t.Errorf("the statistics are of %s, now it is %s", time.Unix(0, stats.Cpu.Timestamp), began)
	}
	memory := stats.GetMemory()
	for what, value := range map[string]uint64{"usage": memory.GetUsageBytes().GetValue(), "working set": memory.GetWorkingSetBytes().GetValue()} {
		if value < held || value > held+64<<20 {
			t.Errorf("%s of memory is %d, of which %d are held", what, value, held)
		}
	}
	answer, err := p.runtime().ContainerStats(p.ctx, &cri.ContainerStatsRequest{ContainerId: idle.id})
	if err != nil {
		t.Fatal(err)
	}
	other := answer.Stats
	if used := other.GetCpu().GetUsageCoreNanoSeconds().GetValue(); used == 0 || used >= stats.Cpu.UsageCoreNanoSeconds.Value {
		t.Errorf("the idle container has used %d ns, the busy one %d", used, stats.Cpu.UsageCoreNanoSeconds.Value)
	}
	if memory := other.GetMemory().GetWorkingSetBytes().GetValue(); memory == 0 || memory >= held {
		t.Errorf("the idle container has %d bytes", memory)
	}
	p.sums(stats, 2)
	p.end()
}

// sums compares the pod's statistics with those of one of its containers, of
// which there are a number.
func (p *pod) sums(part *cri.ContainerStats, containers int) {
	p.t.Helper()
	answer, err := p.runtime().PodSandboxStats(p.ctx, &cri.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		p.t.Fatalf("statistics of pod %s: %v", p.config.Metadata.Name, err)
	}
	sum := answer.GetStats().GetLinux()
	if used := sum.GetCpu().GetUsageCoreNanoSeconds().GetValue(); used < part.Cpu.UsageCoreNanoSeconds.Value {
		p.t.Errorf("the pod has used %d ns, one of its containers %d", used, part.Cpu.UsageCoreNanoSeconds.Value)
	}
	if set := sum.GetMemory().GetWorkingSetBytes().GetValue(); set < part.Memory.WorkingSetBytes.Value/2 {
		p.t.Errorf("the pod has %d bytes, one of its containers %d", set, part.Memory.WorkingSetBytes.Value)
	}
	if n := sum.GetProcess().GetProcessCount().GetValue(); n < uint64(containers) {
		p.t.Errorf("the pod has %d processes", n)
	}
	if got := len(sum.GetContainers()); got != containers {
		p.t.Errorf("the pod's statistics are of %d containers, want %d", got, containers)
	}
	if name := sum.GetNetwork().GetDefaultInterface().GetName(); name != "eth0" {
		p.t.Errorf("the pod's network device is %q", name)
	}
}
