// Command standin is the shim with a daemon that does as little as can be: it
// notes how it was started, answers Connect, and ends on Shutdown. The server
// and the messages are containerd's, so that it is a second reading of the
// contract.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/config"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	call, err := bootstrap.Parse(os.Args)
	if err == nil {
		switch call.Action {
		case bootstrap.Start:
			var starting bootstrap.Starting
			if starting, err = call.ReadStart(os.Stdin); err == nil {
				err = config.Start(starting, bootstrap.Stdout)
			}
		case bootstrap.Serve:
			err = serve(call)
		}
	}
	if err != nil {
		fmt.Fprint(os.Stderr, call.Fail(err))
		os.Exit(1)
	}
}

func serve(call bootstrap.Call) error {
	descriptors := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			descriptors[e.Name()] = strings.TrimRight(target, "0123456789[]")
		}
	}
	daemon, err := call.Daemon()
	if err != nil {
		return err
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	facts, err := json.Marshal(map[string]any{
		"Pid": os.Getpid(), "Args": os.Args, "Env": os.Environ(), "Descriptors": descriptors,
		"OOMScore": strings.TrimSpace(string(score)), "Daemon": daemon,
	})
	if err != nil {
		return err
	}
	note := filepath.Join(os.Getenv("STANDIN_NOTES"), fmt.Sprint(os.Getpid()))
	if err := os.WriteFile(note+".tmp", facts, 0o600); err != nil {
		return err
	}
	if err := os.Rename(note+".tmp", note+".json"); err != nil {
		return err
	}
	listener, err := net.FileListener(daemon.Socket)
	if err != nil {
		return err
	}
	daemon.Socket.Close()
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	task.RegisterTTRPCTaskService(server, service{ended: ended})
	go server.Serve(context.Background(), listener)
	<-ended
	if err := server.Close(); err != nil {
		return err
	}
	return daemon.RemoveSocket()
}

type service struct {
	task.TTRPCTaskService
	ended chan struct{}
}

func (s service) Connect(ctx context.Context, r *task.ConnectRequest) (*task.ConnectResponse, error) {
	metadata, _ := ttrpc.GetMetadata(ctx)
	if joining, ok := metadata.Get(bootstrap.JoinKey); ok {
		note := filepath.Join(os.Getenv("STANDIN_NOTES"), "joined-"+strings.Join(joining, ","))
		if err := os.WriteFile(note, nil, 0o600); err != nil {
			return nil, err
		}
	}
	return &task.ConnectResponse{ShimPid: uint32(os.Getpid())}, nil
}

func (s service) Shutdown(context.Context, *task.ShutdownRequest) (*emptypb.Empty, error) {
	close(s.ended)
	return &emptypb.Empty{}, nil
}
