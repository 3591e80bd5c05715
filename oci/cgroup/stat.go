package cgroup

// This file reads what a group uses, in the two message types that containerd's
// metrics plugin, CRI and moby decode.

import (
	"errors"
	"fmt"
	"os"

	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	stats2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// Stat returns a *cgroup1/stats.Metrics on V1, a *cgroup2/stats.Metrics on V2.
// A controller that the group does not have is missing in it. When the cgroup
// is gone it returns the last sample, or errdefs.ErrNotFound if none was ever
// taken. The result is shared: read it, do not change it.
func (g *Group) Stat() (any, error) {
	sample, err := g.read()
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		g.sample = sample
		return sample, nil
	}
	if errdefs.IsNotFound(err) && g.sample != nil {
		return g.sample, nil
	}
	return nil, fmt.Errorf("read cgroup statistics: %w", err)
}

func (g *Group) read() (any, error) {
	if err := g.loadLate(); err != nil {
		return nil, err
	}
	if g.mode == V2 {
		return g.readV2()
	}
	return g.readV1()
}

// counted are the V1 controllers that have a part in a sample.
var counted = []string{"memory", "pids", "cpuacct", "cpu", "blkio", "rdma", "hugetlb"}

func (g *Group) readV1() (*stats1.Metrics, error) {
	if g.v1 == nil {
		return nil, g.goneError()
	}
	m, err := g.v1.Stat(func(err error) error {
		if isGone(err) || errors.Is(err, os.ErrPermission) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	// The hierarchies are removed one after the other. A sample of what is left
	// half-way would hide the last whole one. If all are still there now, they
	// were while they were read.
	for _, c := range counted {
		if dir := g.dir(c); dir != "" {
			if _, err := os.Lstat(dir); isGone(err) {
				return nil, g.goneError()
			}
		}
	}
	return m, nil
}

func (g *Group) readV2() (*stats2.Metrics, error) {
	m, err := g.v2.Stat()
	if err != nil && !isGone(err) {
		return nil, err
	}
	// The library answers zeros for files that do not exist.
	if _, lerr := os.Lstat(g.dir("")); isGone(lerr) {
		return nil, g.goneError()
	}
	return m, err
}

func (g *Group) goneError() error {
	return fmt.Errorf("cgroup %s does not exist: %w", g.paths[g.procsController()], errdefs.ErrNotFound)
}

// Encode makes the wire form of what Stat or OfRuntime has returned, and tells
// the name of its message.
func Encode(sample any) (name string, encoded []byte, err error) {
	m, ok := sample.(proto.Message)
	if !ok {
		return "", nil, fmt.Errorf("statistics are a %T: %w", sample, errdefs.ErrInternal)
	}
	encoded, err = proto.Marshal(m)
	return string(m.ProtoReflect().Descriptor().FullName()), encoded, err
}

func marshalSample(sample any) []byte {
	if sample == nil {
		return nil
	}
	_, encoded, _ := Encode(sample) // cannot fail with messages made by this package
	return encoded
}

func unmarshalSample(mode Mode, b []byte) (any, error) {
	if b == nil {
		return nil, nil
	}
	var m proto.Message = &stats1.Metrics{}
	if mode == V2 {
		m = &stats2.Metrics{}
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("last sample: %w", err)
	}
	return m, nil
}
