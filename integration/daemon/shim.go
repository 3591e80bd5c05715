package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// Bundle is the folder that containerd made for a task.
func (d *Daemon) Bundle(id string) string {
	return d.Path("state", "io.containerd.runtime.v2.task", d.namespace(), id)
}

// Shim is a connection to the Task service of the shim that serves a
// container, past containerd.
type Shim struct {
	task.TTRPCTaskService
	Address string // path of its socket
	conn    *ttrpc.Client
}

// Shim connects to the shim that serves the container id.
func (d *Daemon) Shim(id string) (*Shim, error) {
	text, err := os.ReadFile(filepath.Join(d.Bundle(id), "bootstrap.json"))
	if errors.Is(err, fs.ErrNotExist) { // as under 1.6 and 1.7
		if address, err := os.ReadFile(filepath.Join(d.Bundle(id), "address")); err == nil {
			return Dial(string(address))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find the shim of %s: %w", id, err)
	}
	var answer struct{ Address string }
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fmt.Errorf("find the shim of %s: %w", id, err)
	}
	return Dial(answer.Address)
}

// Dial connects to the Task service at an address as shims give it.
func Dial(address string) (*Shim, error) {
	path := strings.TrimPrefix(address, "unix://")
	conn, err := net.DialTimeout("unix", path, 10*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connect to the shim at %s: %w", path, err)
	}
	client := ttrpc.NewClient(conn)
	return &Shim{TTRPCTaskService: task.NewTTRPCTaskClient(client), Address: path, conn: client}, nil
}

// ConnectV2 is Connect by version 2 of the Task API, whose messages are the same and
// which is all that the own shims of containerd 1.6 and 1.7 serve.
func (s *Shim) ConnectV2(ctx context.Context, r *task.ConnectRequest) (*task.ConnectResponse, error) {
	answer := &task.ConnectResponse{}
	return answer, s.conn.Call(ctx, "containerd.task.v2.Task", "Connect", r, answer)
}

// Close ends the connection; the shim goes on.
func (s *Shim) Close() error { return s.conn.Close() }
