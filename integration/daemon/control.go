package daemon

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ControlService is the shim's own service, beside containerd's (docs/control.md).
const ControlService = "cleat.control.v1.Control"

// Control calls a method of the control service. request may be nil; answer is
// filled with what is answered. This is all that a client needs to know.
func (s *Shim) Control(ctx context.Context, method string, request, answer any) error {
	in, out := &wrapperspb.BytesValue{}, &wrapperspb.BytesValue{}
	if request != nil {
		var err error
		if in.Value, err = json.Marshal(request); err != nil {
			return err
		}
	}
	if err := s.conn.Call(ctx, ControlService, method, in, out); err != nil {
		return err
	}
	return json.Unmarshal(out.Value, answer)
}

// ShimInfo is what Info answers, as far as tests look at it.
type ShimInfo struct {
	Release                     string
	PID, StateVersion, Upgrades int
	Containers, Execs           int
	Started, Running            time.Time
}

// Upgraded is what Upgrade answers.
type Upgraded struct {
	From, To string
	Pause    time.Duration
	Times    struct{ Asked, Tried, Drained, Stopped, Held, Saved, Arrived, Begun, Built, Served time.Time }
}

// Info asks who the shim is.
func (s *Shim) Info(ctx context.Context) (info ShimInfo, err error) {
	return info, s.Control(ctx, "Info", nil, &info)
}

// Upgrade replaces the shim's program.
func (s *Shim) Upgrade(ctx context.Context, program string) (u Upgraded, err error) {
	return u, s.Control(ctx, "Upgrade", map[string]any{"Path": program}, &u)
}
