package stdio

// This file is what happens to output that is not taken.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Policy of output that nobody takes.
type Policy string

const (
	// Block has the process wait, as in a pipe. It is the zero value's meaning.
	Block Policy = "block"
	// Spill keeps it in a file.
	Spill Policy = "spill"
	// Drop keeps a little of it in memory, the newest.
	Drop Policy = "drop"
)

// Logs says what is done with output that nobody takes.
type Logs struct {
	Policy Policy
	// Limit is how many bytes of each stream are kept; 0 means the usual.
	Limit int64
	// Dir is the folder of spilled output; empty means the container's own.
	Dir string
}

const (
	// minKept is the least Limit, usualSpill and usualDrop what it is without
	// one, maxSpill and maxDrop the most: spilled output is on a disk, or in the
	// memory that /run is on; dropped output is in the shim's.
	minKept    = 64 << 10
	usualSpill = 16 << 20
	usualDrop  = 1 << 20
	maxSpill   = 64 << 30
	maxDrop    = 64 << 20
	// keptOnFailure is what is kept of output to a file that cannot be written,
	// whatever the policy: such a file must not stop the process.
	keptOnFailure = 256 << 10
)

// Check returns an error of the class ErrInvalidArgument for what makes no
// sense.
func (l Logs) Check() error {
	policies := []string{string(Block), string(Spill), string(Drop)}
	most := int64(maxSpill)
	switch l.Policy {
	case "", Block:
		if l.Limit != 0 {
			return fmt.Errorf("a limit says nothing with the policy %s: %w", Block, errdefs.ErrInvalidArgument)
		}
		return nil
	case Spill:
	case Drop:
		most = maxDrop
	default:
		return fmt.Errorf("policy %q is not one of %s: %w", l.Policy, strings.Join(policies, ", "), errdefs.ErrInvalidArgument)
	}
	if l.Limit != 0 && (l.Limit < minKept || l.Limit > most) {
		return fmt.Errorf("limit %d of the policy %s is not between %d and %d bytes: %w", l.Limit, l.Policy, minKept, most, errdefs.ErrInvalidArgument)
	}
	return nil
}

// blocks tells whether the process waits for who reads.
func (l Logs) blocks() bool { return !slices.Contains([]Policy{Spill, Drop}, l.Policy) }

// ring returns what keeps the output of one stream, or nil when the process
// waits. dir is the container's own folder.
func (l Logs) ring(dir string) (*ring, error) {
	switch l.Policy {
	case Spill:
		if l.Dir != "" {
			dir = l.Dir
		}
		file, err := newSpill(dir)
		if err != nil {
			return nil, err
		}
		return newRing(file, orUsual(l.Limit, usualSpill)), nil
	case Drop:
		return newRing(memory{}, orUsual(l.Limit, usualDrop)), nil
	}
	return nil, nil
}

func orUsual(limit, usual int64) int64 {
	if limit == 0 {
		return usual
	}
	return limit
}
