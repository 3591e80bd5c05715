// Package shim is one shim process: it serves the Task service of containerd's
// shim API, versions 2 and 3, for the containers of one group. What the binary
// does besides, for a moment, is in the package bootstrap.
//
// This file is the life of the process. task.go answers the RPCs, translate.go
// turns messages into our types and back, containers.go knows who is served,
// log.go is the log, inspect.go lets an operator look in.
package shim

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	"golang.org/x/sys/unix"
)

const (
	// answerLimit bounds how long the end waits for answers to leave.
	answerLimit = 5 * time.Second
	// drainLimit bounds how long the end waits for containerd to take events,
	// and for clients to take output.
	drainLimit = 10 * time.Second
)

// Serve is the daemon: it returns when it is not needed any more.
func Serve(d bootstrap.Daemon) error {
	l := openLog(oci.Bundle(d.Bundle).Path("log"), d.RuntimeName, d.Debug)
	if err := child.BecomeSubreaper(); err != nil {
		return err
	}
	child.ReapOrphans()

	file, err := net.FileListener(d.Socket)
	if err != nil {
		return fmt.Errorf("listen on the inherited socket: %w", err)
	}
	d.Socket.Close()
	listener, ok := file.(*net.UnixListener)
	if !ok {
		return fmt.Errorf("the inherited socket is a %T", file)
	}
	listener.SetUnlinkOnClose(false) // RemoveSocket does, and looks first

	queue := events.New(events.Options{Address: d.TTRPCAddress, Namespace: d.Namespace, Log: l.Warn})
	tasks := &taskService{
		namespace:  d.Namespace,
		invokedAs:  d.InvokedAs,
		leader:     d.Said,
		containers: newContainers(d.ID, joinLimit),
		events:     queue,
		log:        l,
	}
	server := ttrpcserver.New(ttrpcserver.Options{
		Log: l.Warn,
		// Who connects is containerd, as a rule after it was away.
		OnConnect: queue.Kick,
		OnPanic: func(method string, value any, stack []byte) {
			l.Warn("panic in %s: %v\n%s", method, value, stack)
		},
	})
	for _, version := range []string{"v2", "v3"} {
		server.Register("containerd.task."+version+".Task", tasks.methods())
	}
	now := time.Now()
	inspector := &controlService{daemon: d, tasks: tasks, server: server, started: now, running: now}
	server.Register(control.Service, inspector.methods())
	signals := make(chan os.Signal, 4)
	// Caught and forgotten: signals that are ignored stay so in containers and
	// loggers, a caught one is theirs as usual.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE, unix.SIGHUP)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGUSR1)

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }() // ends by server.Close
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case s := <-signals:
			tasks.signalled(s)
			continue
		case <-tasks.containers.ending:
		}
		break
	}
	end(d, server, queue, l)
	return nil
}

// end lets everything that was promised happen, as far as others let it, and
// bounded.
func end(d bootstrap.Daemon, server *ttrpcserver.Server, queue *events.Queue, l *log) {
	answers, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	if err := server.Close(answers); err != nil {
		l.Warn("%v", err)
	}
	// A `start` of the group finds nobody now. If it was there first it has
	// replaced the file.
	if err := d.RemoveSocket(); err != nil {
		l.Warn("%v", err)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := queue.Drain(drain); err != nil {
		l.Warn("%v", err)
	}
	if err := stdio.Settle(drain); err != nil {
		l.Warn("%v", err)
	}
}

// signalled deals with a signal to the shim itself. A service manager that
// ends everything must not take the containers' exit codes with it, so a shim
// that serves any stays.
func (t *taskService) signalled(s os.Signal) {
	switch s {
	case unix.SIGUSR1:
		t.log.Info("stacks of all goroutines:\n%s", stacks(48<<10)) // what fits in a pipe
	default:
		if n := len(t.containers.all()); n > 0 {
			t.log.Warn("%s is ignored: %d containers are served", s, n)
			return
		}
		t.containers.shutdown("")
	}
}
