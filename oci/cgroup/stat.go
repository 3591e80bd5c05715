package cgroup

// This file tells what a group uses, in the two messages that containerd's
// metrics plugin, CRI and moby decode.

import (
	"fmt"

	"github.com/cleatrun/cleat/oci/cgroup/metrics1"
	"github.com/cleatrun/cleat/oci/cgroup/metrics2"
	"github.com/cleatrun/cleat/oci/wire"
	"github.com/containerd/errdefs"
)

// Sample is what a group uses at one time.
type Sample struct {
	// Message is the full name of the message: metrics1.Name on V1,
	// metrics2.Name on V2.
	Message string
	// Encoded is its wire format.
	Encoded []byte
}

// Stat reads what the group uses. A controller that the group does not have is
// missing in it. When the cgroup is gone it returns the last sample, or
// errdefs.ErrNotFound if none was ever taken. The result is shared: read it, do
// not change it.
func (g *Group) Stat() (*Sample, error) {
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

func (g *Group) read() (*Sample, error) {
	if g.mode == V2 {
		m, err := g.readV2()
		if err != nil {
			return nil, err
		}
		return sample2(m), nil
	}
	m, err := g.readV1()
	if err != nil {
		return nil, err
	}
	return sample1(m), nil
}

func (g *Group) goneError() error {
	return fmt.Errorf("cgroup %s does not exist: %w", g.paths[g.procsController()], errdefs.ErrNotFound)
}

// encodedSize has room for what most samples take.
const encodedSize = 512

func sample1(m *metrics1.Metrics) *Sample {
	return &Sample{Message: metrics1.Name, Encoded: m.Append(make([]byte, 0, encodedSize))}
}

func sample2(m *metrics2.Metrics) *Sample {
	return &Sample{Message: metrics2.Name, Encoded: m.Append(make([]byte, 0, encodedSize))}
}

// encoded is nil if there is no sample.
func (s *Sample) encoded() []byte {
	if s == nil {
		return nil
	}
	return s.Encoded
}

// sampleOf is that of a State.
func sampleOf(mode Mode, encoded []byte) (*Sample, error) {
	if encoded == nil {
		return nil, nil
	}
	if err := wire.Skip(encoded); err != nil {
		return nil, fmt.Errorf("last sample: %w", err)
	}
	s := &Sample{Message: metrics1.Name, Encoded: encoded}
	if mode == V2 {
		s.Message = metrics2.Name
	}
	return s, nil
}
