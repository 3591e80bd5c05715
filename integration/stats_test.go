package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"
)

// TestMetricsAreOfTheHostsCgroupVersion reads a container's metrics as a
// monitoring system does: in the type that this host's cgroups have, with the
// limit that was set and figures that can be.
func TestMetricsAreOfTheHostsCgroupVersion(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	const limit = 64 << 20
	b := newBox(t, d, "metrics", []string{"sh", "-c", "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; exec sleep 100000"},
		oci.WithMemoryLimit(limit), oci.WithPidsLimit(30)).start(nil)

	var usage, memoryLimit, pids, pidsLimit, cpu uint64
	read := func() {
		t.Helper()
		began := time.Now()
		metric, err := b.task.Metrics(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if at := metric.Timestamp.AsTime(); metric.ID != b.ID() || at.Before(began) || at.After(time.Now()) {
			t.Errorf("the metrics are of %s at %s, asked for those of %s at %s", metric.ID, at, b.ID(), began)
		}
		message, err := typeurl.UnmarshalAny(metric.Data)
		if err != nil {
			t.Fatal(err)
		}
		unified := cgroups.Mode() == cgroups.Unified
		switch m := message.(type) {
		case *cgroup1.Metrics:
			if unified {
				t.Fatal("the metrics are of cgroup v1, the host has v2")
			}
			usage, memoryLimit = m.Memory.Usage.Usage, m.Memory.Usage.Limit
			pids, pidsLimit, cpu = m.Pids.Current, m.Pids.Limit, m.CPU.Usage.Total
		case *cgroup2.Metrics:
			if !unified {
				t.Fatal("the metrics are of cgroup v2, the host has v1")
			}
			usage, memoryLimit = m.Memory.Usage, m.Memory.UsageLimit
			pids, pidsLimit, cpu = m.Pids.Current, m.Pids.Limit, m.CPU.UsageUsec*1000
		default:
			t.Fatalf("the metrics are a %T", message)
		}
	}
	eventually(t, func() error {
		read()
		if usage == 0 || usage > limit || pids != 1 || cpu == 0 || cpu > uint64(time.Minute) {
			return fmt.Errorf("one process uses %d bytes, %d processes, %d ns", usage, pids, cpu)
		}
		return nil
	})
	if memoryLimit != limit || pidsLimit != 30 {
		t.Errorf("the limits are %d bytes and %d processes, want %d and 30", memoryLimit, pidsLimit, limit)
	}
	for i := range 3 {
		b.exec(fmt.Sprint("exec-", i), nil, "sleep", "1000")
	}
	eventually(t, func() error {
		if read(); pids != 4 {
			return fmt.Errorf("with three execs there are %d processes", pids)
		}
		return nil
	})
	b.end()
}
