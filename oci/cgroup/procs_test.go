package cgroup

import (
	"slices"
	"syscall"
	"testing"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/errdefs"
)

func TestLoadStatPIDsKillOnV1(t *testing.T) {
	tr := newV1(t)
	p := startIn(t, "use:33554432", true, tr.all()...)
	g := load(t, p.Process.Pid)
	s, err := g.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m := s.(*stats1.Metrics)
	if m.Memory == nil || m.Memory.Usage.Usage < 32<<20 || m.Memory.RSS < 32<<20 {
		t.Errorf("memory: %+v", m.Memory)
	}
	if m.Pids == nil || m.Pids.Current == 0 || m.CPU.Usage.Total == 0 {
		t.Errorf("pids %+v cpu %+v", m.Pids, m.CPU)
	}
	pids, err := g.PIDs()
	if err != nil || !slices.Equal(pids, []int{p.Process.Pid}) {
		t.Fatalf("pids %v, %v", pids, err)
	}
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.mustEnd(t)
	tr.remove(t)
	if pids, err := g.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("pids of a vanished group: %v, %v", pids, err)
	}
	if again, err := g.Stat(); err != nil || again != s {
		t.Errorf("last sample: %v, %v", again, err)
	}
	if err := g.Kill(syscall.SIGKILL); err != nil {
		t.Errorf("kill of a vanished group: %v", err)
	}
	if _, err := Load(p.Process.Pid); !errdefs.IsNotFound(err) {
		t.Errorf("load of a process that ended: %v", err)
	}
}
