package cri

import (
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/kernel"
)

// kubectl patch with other limits ("in place"): they hold for the container that
// runs, and for nothing else.
func TestUpdateContainerResources(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "update")
	before := &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20, CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512}
	c, other := p.run("main", forever, resources(before)), p.run("other", forever, resources(before))
	pid := c.pid()
	after := &cri.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, CpuPeriod: 100000, CpuQuota: 20000, CpuShares: 256}
	if _, err := p.runtime().UpdateContainerResources(p.ctx, &cri.UpdateContainerResourcesRequest{ContainerId: c.id, Linux: after}); err != nil {
		t.Fatalf("update: %v", err)
	}
	for _, test := range []struct {
		c     *container
		limit string
		quota string
	}{{c, "134217728", "20000"}, {other, "67108864", "50000"}} {
		limit, err := kernel.CgroupFile(test.c.pid(), "memory", "memory.limit_in_bytes", "memory.max")
		if err != nil {
			t.Fatal(err)
		}
		quota, err := kernel.CgroupFile(test.c.pid(), "cpu", "cpu.cfs_quota_us", "cpu.max")
		if err != nil {
			t.Fatal(err)
		}
		quota, _, _ = strings.Cut(quota, " ") // v2 has the period in the same file
		if limit != test.limit || quota != test.quota {
			t.Errorf("%s has a limit of %s bytes and a quota of %s, want %s and %s", test.c.name(), limit, quota, test.limit, test.quota)
		}
	}
	status := c.status()
	if got := status.GetResources().GetLinux().GetMemoryLimitInBytes(); got != after.MemoryLimitInBytes {
		t.Errorf("its status says %d bytes", got)
	}
	if got := c.pid(); got != pid {
		t.Errorf("its process was %d and is %d", pid, got)
	}
	p.end()
}
