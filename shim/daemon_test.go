package shim

// The daemon as a process of its own: this test binary again, started as
// `start` does it.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/oci/ocitest"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/control"
	"github.com/cleatrun/cleat/shim/events"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// daemonVariable makes the test binary the daemon, limitVariable says how long it
// stays alone.
const (
	daemonVariable = "SHIM_TEST_DAEMON"
	limitVariable  = "SHIM_TEST_LIMIT"
)

func serveIfAsked() {
	if os.Getenv(daemonVariable) == "" {
		return
	}
	go panicIfAsked()
	if limit, err := time.ParseDuration(os.Getenv(limitVariable)); err == nil {
		aloneLimit = limit
	}
	call, err := bootstrap.Parse(os.Args)
	befall(call.Action == bootstrap.Try)
	if handed := arrival.Get(); handed != nil {
		err = Resume(handed)
	} else if call.Action == bootstrap.Try {
		err = Try(os.Stdout)
	} else if err == nil {
		var d bootstrap.Daemon
		if d, err = call.Daemon(); err == nil {
			err = Serve(d)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// daemon is one, with the node around it.
type daemon struct {
	task.TTRPCTaskService
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan error
	runtime *ocitest.Runtime
	bundle  oci.Bundle
	socket  string
	events  string // path of containerd's socket
	client  *ttrpc.Client
	log     *bufio.Reader
}

const daemonID = "box"

// startDaemon starts one for the container daemonID.
func startDaemon(t *testing.T, init string) *daemon {
	t.Helper()
	d := &daemon{t: t, runtime: ocitest.New(t, namespace), ended: make(chan error, 1)}
	d.bundle = d.runtime.Bundle(daemonID, init)
	d.socket, d.events = filepath.Join(d.runtime.Dir(), "s"), filepath.Join(d.runtime.Dir(), "e")
	must(t, "make log", syscall.Mkfifo(d.bundle.Path("log"), 0o600))
	log, err := os.OpenFile(d.bundle.Path("log"), os.O_RDWR|syscall.O_NONBLOCK, 0)
	must(t, "open log", err)
	t.Cleanup(func() { log.Close() })
	d.log = bufio.NewReader(log)

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	must(t, "listen", err)
	l.SetUnlinkOnClose(false)
	inherited, err := l.File()
	must(t, "hand the socket over", err)
	l.Close()
	defer inherited.Close()
	d.cmd = exec.Command("/proc/self/exe", "-namespace", namespace, "-id", daemonID, "-address", "/run/containerd/containerd.sock", "-debug")
	d.cmd.Args[0] = "containerd-shim-cleat-v2"
	d.cmd.Dir = string(d.bundle)
	d.cmd.Env = append(os.Environ(), daemonVariable+"=1", "TTRPC_ADDRESS="+d.events, "GORACE=atexit_sleep_ms=0 halt_on_error=1")
	d.cmd.ExtraFiles = []*os.File{inherited}
	d.cmd.Stderr = os.Stderr
	must(t, "start daemon", d.cmd.Start())
	go func() { d.ended <- d.cmd.Wait() }()
	t.Cleanup(func() {
		d.cmd.Process.Kill()
		if d.ended != nil {
			<-d.ended
		}
	})
	conn, err := net.Dial("unix", d.socket)
	must(t, "connect", err)
	d.client = ttrpc.NewClient(conn)
	t.Cleanup(func() { d.client.Close() })
	d.TTRPCTaskService = task.NewTTRPCTaskClient(d.client)
	return d
}

func (d *daemon) create() {
	d.t.Helper()
	_, err := d.Create(bounded(d.t), &task.CreateTaskRequest{ID: daemonID, Bundle: string(d.bundle),
		Options: sent(packed(d.t, &runcoptions.Options{BinaryName: d.runtime.Path(), Root: d.runtime.Root()}))})
	must(d.t, "create", err)
}

func (d *daemon) start() {
	d.t.Helper()
	_, err := d.Start(bounded(d.t), &task.StartRequest{ID: daemonID})
	must(d.t, "start", err)
}

func (d *daemon) remove() {
	d.t.Helper()
	d.Kill(bounded(d.t), &task.KillRequest{ID: daemonID, Signal: 9})
	_, err := d.Wait(bounded(d.t), &task.WaitRequest{ID: daemonID})
	must(d.t, "wait", err)
	_, err = d.Delete(bounded(d.t), &task.DeleteRequest{ID: daemonID})
	must(d.t, "delete", err)
}

// ends asks for the end and waits for it.
func (d *daemon) ends() {
	d.t.Helper()
	_, err := d.Shutdown(bounded(d.t), &task.ShutdownRequest{ID: daemonID})
	must(d.t, "shutdown", err)
	d.hasEnded()
}

func (d *daemon) hasEnded() {
	d.t.Helper()
	d.client.Close() // as containerd does; who stays is given a moment to go
	err := receive(d.t, "the daemon's end", d.ended)
	d.ended = nil
	must(d.t, "the daemon", err)
	if _, err := os.Stat(d.socket); err == nil {
		d.t.Error("the socket's file is left")
	}
}

// says waits for a line of the log.
func (d *daemon) says(part string) {
	d.t.Helper()
	for {
		if _, message := next(d.t, d.log); strings.Contains(message, part) {
			return
		}
	}
}

// eventServer is containerd.
type eventServer struct {
	mu     sync.Mutex
	topics []string
}

func (s *eventServer) Forward(_ context.Context, r *ttrpcevents.ForwardRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.topics = append(s.topics, r.Envelope.Topic)
	return &emptypb.Empty{}, nil
}

func (s *eventServer) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.topics)
}

func containerd(t *testing.T, path string) *eventServer {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, "listen", err)
	server, err := ttrpc.NewServer()
	must(t, "make server", err)
	s := new(eventServer)
	ttrpcevents.RegisterTTRPCEventsService(server, s)
	go server.Serve(context.Background(), l)
	t.Cleanup(func() { server.Close() })
	return s
}

// Stock's process ends with events in its queue. Here a containerd that comes
// back at the last moment gets all of them, and the end waits for that.
func TestDaemonEndsWhenContainerdHasTakenItsEvents(t *testing.T) {
	d := startDaemon(t, "exit 3")
	d.create()
	d.start()
	d.remove()
	_, err := d.Shutdown(bounded(t), &task.ShutdownRequest{ID: daemonID})
	must(t, "shutdown", err)
	select {
	case err := <-d.ended:
		t.Fatalf("the daemon ended with events that nobody has taken: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	events := containerd(t, d.events)
	d.hasEnded()
	got := events.taken()
	if !slices.Equal(got, []string{"/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"}) {
		t.Errorf("containerd has taken %q", got)
	}
}

// A signal that the shim ignores, its children would ignore too: SIGPIPE that
// ends a pipeline in the container, SIGHUP that a shell's trap is for.
func TestChildrenOfTheDaemonIgnoreNoSignal(t *testing.T) {
	d := startDaemon(t, `exec grep SigIgn /proc/self/status >"${0%/*}/ignored"`)
	containerd(t, d.events)
	logger := filepath.Join(d.runtime.Dir(), "logger")
	must(t, "write logger", os.WriteFile(logger, []byte("#!/bin/sh\n/bin/grep SigIgn /proc/self/status >"+logger+".ignored\nexec 5>&-\nexec /bin/cat <&3\n"), 0o700))
	_, err := d.Create(bounded(t), &task.CreateTaskRequest{ID: daemonID, Bundle: string(d.bundle), Stdout: "binary://" + logger,
		Options: sent(packed(t, &runcoptions.Options{BinaryName: d.runtime.Path(), Root: d.runtime.Root()}))})
	must(t, "create", err)
	d.start()
	_, err = d.Wait(bounded(t), &task.WaitRequest{ID: daemonID})
	must(t, "wait", err)
	d.remove()
	for _, path := range []string{d.bundle.Path("ignored"), logger + ".ignored"} {
		text, err := os.ReadFile(path)
		must(t, "read signals", err)
		mask, err := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(text), "SigIgn:")), 16, 64)
		must(t, "read signals", err)
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGCHLD} {
			if mask&(1<<(s-1)) != 0 {
				t.Errorf("%s: %s is ignored (%x)", filepath.Base(path), s, mask)
			}
		}
	}
	d.ends()
}

// A service manager that ends everything must not take the exit codes of
// containers with it.
func TestDaemonWithContainersStaysWhenItIsSignalled(t *testing.T) {
	d := startDaemon(t, "exec sleep 1000")
	containerd(t, d.events)
	d.create()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		must(t, "signal", d.cmd.Process.Signal(s))
		d.says(s.String() + " is ignored: 1 containers are served")
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE} {
		must(t, "signal", d.cmd.Process.Signal(s))
	}
	for _, s := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGQUIT} {
		must(t, "signal", d.cmd.Process.Signal(s))
		d.says("stacks of all goroutines")
		var dump control.Dump
		eventually(t, "there is a dump", func() bool {
			text, err := d.bundle.Read(control.DumpFile)
			return err == nil && json.Unmarshal(text, &dump) == nil
		})
		if !strings.Contains(dump.Stacks, "goroutine ") || len(dump.Operations) == 0 {
			t.Errorf("after %s the dump is %+v", s, dump)
		}
		must(t, "remove the dump", d.bundle.Remove(control.DumpFile))
	}
	d.start()
	d.remove()
	d.ends()
}

func TestDaemonWithoutContainersEndsWhenItIsSignalled(t *testing.T) {
	d := startDaemon(t, "exit 0")
	containerd(t, d.events)
	d.create()
	d.remove()
	must(t, "signal", d.cmd.Process.Signal(syscall.SIGTERM))
	d.hasEnded()
}

// Nobody has asked for the container yet, and perhaps nobody will.
func TestDaemonBeforeItsFirstCreateEndsWhenItIsSignalled(t *testing.T) {
	d := startDaemon(t, "exit 0")
	_, err := d.Connect(bounded(t), &task.ConnectRequest{ID: daemonID}) // it serves
	must(t, "connect", err)
	must(t, "signal", d.cmd.Process.Signal(syscall.SIGTERM))
	d.hasEnded()
}

// Nobody asks for the end, for containerd is gone.
func TestDaemonWhoseContainerdIsGoneEnds(t *testing.T) {
	t.Setenv(limitVariable, "20ms")
	for _, upgraded := range []bool{false, true} {
		d := startDaemon(t, "exit 0")
		d.create()
		if upgraded {
			c := d.control()
			d.upgrade(c)
			c.Close()
		}
		d.remove()
		containerd(t, d.events) // lest the end waits
		d.hasEnded()
	}
}

// Orphans of the container's processes become the daemon's children, which must
// not pile up as zombies.
func TestDaemonReapsOrphans(t *testing.T) {
	d := startDaemon(t, `(sleep 0.01 & sleep 0.01 &); : >"${0%/*}/ready"; exec sleep 1000`)
	containerd(t, d.events)
	d.create()
	d.start()
	eventually(t, "the container is ready", func() bool { _, err := os.Stat(d.bundle.Path("ready")); return err == nil })
	eventually(t, "only init is left", func() bool {
		all := 0
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.cmd.Process.Pid))
		for _, file := range threads {
			list, _ := os.ReadFile(file)
			all += len(strings.Fields(string(list)))
		}
		return all == 1
	})
	d.remove()
	d.ends()
}

// A shim that is asked to end before it has come to accept connections, as one may
// be that has just been upgraded, left its socket to the next who looked for it.
func TestShimThatEndsAtOnceRemovesItsSocket(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as the daemon has it
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		must(t, "listen", err)
		l.SetUnlinkOnClose(false)
		s := &shim{daemon: bootstrap.Daemon{SocketPath: path}, log: &log{}, listener: l}
		s.assemble(newContainers(daemonID, longAfter), events.New(s.eventOptions()))
		if n := s.tasks.containers.terminate(); n != 0 {
			t.Fatalf("it serves %d containers", n)
		}
		must(t, "serve", s.serve())
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the socket's file is left: %v", err)
		}
	}
}
