package main

// What each fault does.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/cleatrun/cleat/integration/tools"
)

// errNothing is why a fault does nothing: what it is for is not there.
var errNothing = errors.New("there is nothing to do it to")

// fire does a fault.
func (r *round) fire(ctx context.Context, f faultPlan) error {
	w := r.w
	c := w.plan.container(f.Container)
	switch f.Kind {
	case killShim:
		return w.killShim(c)
	case killContainerd:
		r.restarting.Lock()
		defer r.restarting.Unlock()
		return w.restart(ctx, f.For)
	case killLogger:
		return w.killLogger(c)
	case badConnection:
		return w.connect(ctx, c, f)
	case freezeCgroup:
		return w.freeze(ctx, c, f.For)
	case fullDisk:
		return w.fill(ctx, f)
	case upgradeShim:
		return w.upgrade(ctx, c)
	case goneReader:
		return r.lives[c.ID].sink.away(ctx, f.For)
	case stopShim:
		return w.stop(ctx, c, f.For)
	}
	return fmt.Errorf("nobody knows how to do %s", f.Kind)
}

// order leaves the orders of the plan for the OCI runtime, before any container
// is made.
func (w *world) order() error {
	for _, f := range w.plan.Faults {
		before, after := 0, 0
		switch f.Kind {
		case slowRuntime:
			before, after = int(f.For.Milliseconds())/2, int(f.For.Milliseconds())/2
		case killRuntime:
		default:
			continue
		}
		order := filepath.Join(w.orders, f.Container+"."+f.Verb)
		if err := os.WriteFile(order, fmt.Appendf(nil, "%d %d %d\n", before, after, f.Kill), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) killShim(c containerPlan) error {
	pid := w.shimPID(c)
	if pid == 0 {
		return errNothing
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errNothing
	}
	defer unix.Close(fd)
	if w.shimPID(c) != pid {
		return errNothing
	}
	w.noteKill(c.shim())
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != unix.ESRCH {
		return err
	}
	return errNothing // it has just ended
}

func (w *world) stop(ctx context.Context, c containerPlan, d time.Duration) error {
	pid := w.shimPID(c)
	if pid == 0 {
		return errNothing
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return errNothing
	}
	defer unix.Close(fd)
	if w.shimPID(c) != pid {
		return errNothing
	}
	ended := w.span(stopShim, c.shim())
	defer ended()
	if err := unix.PidfdSendSignal(fd, unix.SIGSTOP, nil, 0); errors.Is(err, unix.ESRCH) {
		return errNothing // it has just ended
	} else if err != nil {
		return err
	}
	pause(ctx, d)
	if err := unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// killLogger kills the container's logger. It is told from others by the files
// that it was given.
func (w *world) killLogger(c containerPlan) error {
	if c.Runs.Sink != loggerSink {
		return errNothing
	}
	for _, p := range w.d.Processes() {
		if strings.HasPrefix(p.Command, w.cast.logger+" ") && strings.Contains(p.Command, "/"+c.ID+".out") {
			w.mu.Lock()
			w.killed[c.ID]++
			w.mu.Unlock()
			if err := unix.Kill(p.PID, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
				return errNothing
			} else if err != nil {
				return err
			}
			return nil
		}
	}
	return errNothing
}

// freeze freezes the container's cgroup.
func (w *world) freeze(ctx context.Context, c containerPlan, d time.Duration) error {
	var file string
	freeze, thaw := "FROZEN", "THAWED"
	for _, candidate := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"} {
		dir := filepath.Join(candidate, w.d.Namespace, c.ID)
		if _, err := os.Stat(filepath.Join(dir, "freezer.state")); err == nil {
			file = filepath.Join(dir, "freezer.state")
		} else if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err == nil {
			file, freeze, thaw = filepath.Join(dir, "cgroup.freeze"), "1", "0"
		}
	}
	if file == "" {
		return errNothing
	}
	ended := w.span(freezeCgroup, c.ID)
	defer ended()
	err := os.WriteFile(file, []byte(freeze), 0)
	if err == nil {
		pause(ctx, d)
		err = os.WriteFile(file, []byte(thaw), 0)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil // the container has ended meanwhile, or before
	}
	return err
}

// fill takes all room of a filesystem.
func (w *world) fill(ctx context.Context, f faultPlan) error {
	dir := map[string]string{"bundles": w.bundles, "logs": w.logs}[f.Verb]
	ended := w.span(fullDisk, f.Verb)
	defer ended()
	filler, err := os.CreateTemp(dir, ".filler-")
	if err != nil {
		return errNothing // it is full
	}
	defer filler.Close()
	defer os.Remove(filler.Name())
	block := make([]byte, 4096)
	until := time.Now().Add(f.For)
	for time.Now().Before(until) && ctx.Err() == nil {
		// What is removed meanwhile is taken, too.
		if _, err := filler.Write(block); errors.Is(err, unix.ENOSPC) {
			pause(ctx, time.Millisecond)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// upgrade replaces the program of the container's shim by the same.
func (w *world) upgrade(ctx context.Context, c containerPlan) error {
	shim, err := w.d.Shim(c.ID)
	if err != nil {
		return errNothing
	}
	defer shim.Close()
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = shim.Upgrade(ctx, filepath.Join(w.cast.shim, tools.ShimName))
	if err != nil && strings.Contains(err.Error(), "another upgrade is under way") {
		return errNothing // the plan has one for another container of the shim
	}
	return err
}

// rubbish is what badConnection sends.
var rubbish = []string{"nothing", "noise", "half a head", "half a frame", "too long a frame", "half, and stays", "a call, and leaves", "a wait, and leaves"}

// connect connects to the container's shim and behaves badly.
func (w *world) connect(ctx context.Context, c containerPlan, f faultPlan) error {
	shim, err := w.d.Shim(c.ID)
	if err != nil {
		return errNothing
	}
	shim.Close()
	conn, err := net.DialTimeout("unix", shim.Address, time.Second)
	if err != nil {
		return errNothing
	}
	defer conn.Close()
	request := &task.StateRequest{ID: c.ID}
	method := "State"
	if f.Verb == "a wait, and leaves" {
		method = "Wait"
	}
	payload, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	body, err := proto.Marshal(&ttrpc.Request{Service: "containerd.task.v3.Task", Method: method, Payload: payload})
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	frame = binary.BigEndian.AppendUint32(frame, 1) // stream
	frame = append(append(frame, 1, 0), body...)    // a request, no flags
	var send []byte
	stay := time.Duration(0)
	switch f.Verb {
	case "nothing":
		stay = f.For
	case "noise":
		send = []byte(strings.Repeat("\x00\xff\x03noise", 100))
	case "half a head":
		send = frame[:5]
	case "half a frame":
		send = frame[:len(frame)-3]
	case "too long a frame":
		send = append([]byte{0x7f, 0xff, 0xff, 0xff}, frame[4:]...)
		stay = f.For
	case "half, and stays":
		send, stay = frame[:len(frame)/2], f.For
	default:
		send = frame
	}
	if len(send) > 0 {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.Write(send) // the shim may close it at any time
	}
	pause(ctx, stay)
	return nil
}
