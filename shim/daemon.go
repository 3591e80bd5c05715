// Package shim is one shim process: it serves the Task service of containerd's
// shim API, versions 2 and 3, for the containers of one group. What the binary
// does besides, for a moment, is in the package bootstrap.
//
// This file is the life of the process. task.go answers the RPCs, translate.go
// turns messages into our types and back, containers.go knows who is served,
// log.go is the log, crash.go what is left of a shim that has a fault, inspect.go lets an operator look in,
// upgrade.go and resume.go are the two halves of an upgrade.
package shim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/child"
	"github.com/cleatrun/cleat/process/stdio"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/ttrpcserver"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	"golang.org/x/sys/unix"
)

const (
	// answerLimit bounds how long the end waits for answers to leave.
	answerLimit = 5 * time.Second
	// drainLimit bounds how long the end waits for containerd to take an event,
	// and for clients to take output.
	drainLimit = 10 * time.Second
	// eventsLimit bounds how long it waits for containerd to take all of them.
	eventsLimit = 2 * time.Minute
)

// shim is one process that serves containers.
type shim struct {
	daemon   bootstrap.Daemon
	log      *log
	signals  chan syscall.Signal
	listener *net.UnixListener
	queue    *events.Queue
	tasks    *taskService
	server   *ttrpcserver.Server

	started  time.Time // the process
	running  time.Time // this program
	upgrades int
	upgrade  upgrading
	crash    crashReport
}

// Serve is the daemon: it returns when it is not needed any more.
func Serve(d bootstrap.Daemon) error {
	l := openLog(oci.Bundle(d.Bundle).Path("log"), d.RuntimeName, d.Debug)
	if err := child.BecomeSubreaper(); err != nil {
		return err
	}
	child.ReapOrphans()
	listener, err := listenOn(d.Socket)
	if err != nil {
		return err
	}
	d.Socket.Close()
	now := time.Now()
	s := &shim{daemon: d, log: l, listener: listener, signals: arrival.CatchSignals(), started: now, running: now}
	s.assemble(newContainers(d.ID, joinLimit), events.New(s.eventOptions()))
	s.reportCrashes()
	return s.serve()
}

// listenOn makes a listener of an inherited socket, which stays open.
func listenOn(socket *os.File) (*net.UnixListener, error) {
	inherited, err := net.FileListener(socket)
	if err != nil {
		return nil, fmt.Errorf("listen on the inherited socket: %w", err)
	}
	listener, ok := inherited.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("the inherited socket is a %T", inherited)
	}
	listener.SetUnlinkOnClose(false) // RemoveSocket does, and looks first
	return listener, nil
}

func (s *shim) eventOptions() events.Options {
	return events.Options{Address: s.daemon.TTRPCAddress, Namespace: s.daemon.Namespace, Log: s.log.Warn, Spill: s.spillEvents}
}

// spillEvents makes the file for events that are too many for memory: on a disk,
// if there is one, else in the memory in which bundles are. A bundle may be gone.
func (s *shim) spillEvents() (*os.File, error) {
	bundles := []oci.Bundle{oci.Bundle(s.daemon.Bundle)}
	for _, c := range s.tasks.containers.all() {
		bundles = append(bundles, c.Bundle())
	}
	var failed error
	for _, b := range bundles {
		for _, dir := range []string{b.Work(), string(b)} {
			file, err := oci.UnnamedFile(dir)
			if err == nil {
				return file, nil
			}
			failed = errors.Join(failed, err)
		}
	}
	return nil, failed
}

// assemble makes the services and their server of what there is to serve.
func (s *shim) assemble(c *containers, queue *events.Queue) {
	s.queue = queue
	s.tasks = &taskService{
		namespace:  s.daemon.Namespace,
		invokedAs:  s.daemon.InvokedAs,
		leader:     s.daemon.Said,
		containers: c,
		goes:       s.bundleGoes,
		events:     queue,
		log:        s.log,
	}
	s.server = ttrpcserver.New(ttrpcserver.Options{
		Log: s.log.Warn,
		// Who connects is containerd, as a rule after it was away.
		OnConnect: queue.Kick,
		Pace:      pace,
		OnPanic: func(method string, value any, stack []byte) {
			s.log.Warn("panic in %s: %v\n%s", method, value, stack)
		},
	})
	methods := s.tasks.methods()
	for _, version := range []string{"v2", "v3"} {
		s.server.Register("containerd.task."+version+".Task", methods)
	}
	s.server.Register(control.Service, s.controls())
}

// serve serves until the shim is not needed any more.
func (s *shim) serve() error {
	s.tasks.containers.watch(func() bool { return s.server.Connected() > 0 }, aloneLimit)
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(s.listener) }() // ends by server.Close
	for {
		select {
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case signal := <-s.signals:
			s.signalled(signal)
			continue
		case <-s.tasks.containers.ending:
		}
		break
	}
	s.end()
	return nil
}

// end lets everything that was promised happen, as far as others let it, and
// bounded.
func (s *shim) end() {
	answers, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	if err := s.server.Close(answers); err != nil {
		s.log.Warn("%v", err)
	}
	s.listener.Close() // as Serve does, which may not have begun
	// A `start` of the group finds nobody now. If it was there first it has
	// replaced the file.
	if err := s.daemon.RemoveSocket(); err != nil {
		s.log.Warn("%v", err)
	}
	told, cancel := context.WithTimeout(context.Background(), eventsLimit)
	defer cancel()
	if err := s.queue.Drain(told, drainLimit); err != nil {
		s.log.Warn("%v", err)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := stdio.Settle(drain); err != nil {
		s.log.Warn("%v", err)
	}
}

// signalled deals with a signal to the shim itself. A service manager that
// ends everything must not take the containers' exit codes with it, so a shim
// that serves any stays.
func (s *shim) signalled(signal syscall.Signal) {
	switch signal {
	case unix.SIGUSR1, unix.SIGQUIT: // no lock is taken that anything slow is done under
		s.log.Info("stacks of all goroutines:\n%s", stacks(48<<10)) // what fits in a pipe
		s.leaveDump()
	default:
		if n := s.tasks.containers.terminate(); n > 0 {
			s.log.Warn("%s is ignored: %d containers are served", signal, n)
		}
	}
}
