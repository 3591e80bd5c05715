package walk

import (
	"context"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/cgroups/v3"
	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/typeurl/v2"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
)

// client uses the newest Go client. What it has of a containerd it asks for
// again, since there may be another one.
type client struct {
	d       *daemon.Daemon
	runtime string
	t       *testing.T
	ctx     context.Context
	events  *daemon.Events
	io      map[string]cio.IO // of the tasks
}

func newClient(d *daemon.Daemon, runtime string) user {
	return &client{d: d, runtime: runtime, io: make(map[string]cio.IO)}
}

func (c *client) to(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), stepTime)
	t.Cleanup(cancel)
	c.t, c.ctx = t, c.d.Context(ctx)
}

// must ends the step if there is an error.
func (c *client) must(what string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

func (c *client) connection() *containerd.Client {
	c.t.Helper()
	connection, err := c.d.Client()
	c.must("connect", err)
	return connection
}

func (c *client) pull(ref string) {
	c.t.Helper()
	_, err := c.connection().Pull(c.ctx, ref, containerd.WithPullUnpack, containerd.WithResolver(
		docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost))})))
	c.must("pull "+ref, err)
}

// create makes a container and its task.
func (c *client) create(id string, creator cio.Creator, annotations map[string]string, args []string) containerd.Task {
	c.t.Helper()
	img, err := c.connection().GetImage(c.ctx, image.Name)
	c.must("find the image", err)
	container, err := c.connection().NewContainer(c.ctx, id,
		containerd.WithImage(img), containerd.WithNewSnapshot(id, img),
		containerd.WithNewSpec(oci.WithDefaultPathEnv, oci.WithProcessArgs(args...), oci.WithAnnotations(annotations),
			oci.WithCgroup("/"+c.d.Namespace+"/"+id)))
	c.must("make container "+id, err)
	task, err := container.NewTask(c.ctx, creator)
	c.must("create the task of "+id, err)
	c.io[id] = task.IO()
	return task
}

func (c *client) streams(stdin io.Reader, stdout, stderr io.Writer, more ...cio.Opt) cio.Creator {
	return cio.NewCreator(append([]cio.Opt{cio.WithStreams(stdin, stdout, stderr), cio.WithFIFODir(c.d.Fifos())}, more...)...)
}

// toEnd starts a process that has just been made, and waits for its end.
func (c *client) toEnd(p containerd.Process) (status int) {
	c.t.Helper()
	exited, err := p.Wait(c.ctx)
	c.must("wait", err)
	c.must("start", p.Start(c.ctx))
	ended := <-exited
	c.must("wait", ended.Error())
	p.IO().Wait()
	return int(ended.ExitCode())
}

// closing is an input that tells the process when it is at its end.
type closing struct {
	io.Reader
	ended chan struct{}
}

func (r *closing) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if err == io.EOF {
		close(r.ended)
	}
	return n, err
}

func (c *client) run(id, input string, args ...string) (output, errors string, status int) {
	c.t.Helper()
	var out, errs ears
	in := &closing{strings.NewReader(input), make(chan struct{})}
	task := c.create(id, c.streams(in, &out, &errs), nil, args)
	go func() { // ends when the input has been read
		<-in.ended
		task.CloseIO(c.ctx, containerd.WithStdinCloser)
	}()
	status = c.toEnd(task)
	output, _ = out.heard()
	errors, _ = errs.heard()
	if deleted := c.delete(id); deleted != status {
		c.t.Errorf("Wait says %d, Delete %d", status, deleted)
	}
	return output, errors, status
}

func (c *client) watch() {
	c.t.Helper()
	var err error
	// Until containerd or the walk ends.
	c.events, err = c.d.Subscribe(context.WithoutCancel(c.ctx))
	c.must("subscribe", err)
}

func (c *client) told(id string) (topics []string) {
	for _, event := range c.events.Of(id) {
		topics = append(topics, event.Topic)
	}
	return topics
}

func (c *client) start(id string, annotations map[string]string, args ...string) *talk {
	c.t.Helper()
	var out ears
	in, words := io.Pipe()
	task := c.create(id, c.streams(in, &out, io.Discard), annotations, args)
	c.must("start "+id, task.Start(c.ctx))
	return &talk{in: words, heard: out.heard}
}

func (c *client) task(id string) containerd.Task {
	c.t.Helper()
	container, err := c.connection().LoadContainer(c.ctx, id)
	c.must("find container "+id, err)
	task, err := container.Task(c.ctx, nil)
	c.must("find the task of "+id, err)
	return task
}

// add adds an exec.
func (c *client) add(id, exec string, creator cio.Creator, terminal bool, args []string) containerd.Process {
	c.t.Helper()
	task := c.task(id)
	spec, err := task.Spec(c.ctx)
	c.must("read the spec of "+id, err)
	spec.Process.Args, spec.Process.Terminal = args, terminal
	p, err := task.Exec(c.ctx, exec, spec.Process, creator)
	c.must("add exec "+exec, err)
	return p
}

func (c *client) talk(id, exec string, args ...string) *talk {
	c.t.Helper()
	var out ears
	in, words := io.Pipe()
	p := c.add(id, exec, c.streams(in, &out, io.Discard), false, args)
	c.must("start exec "+exec, p.Start(c.ctx))
	return &talk{in: words, heard: out.heard, end: func() { finish(p.IO()) }}
}

func (c *client) exec(id, exec string, args ...string) (output string, status int) {
	var out ears
	p := c.add(id, exec, c.streams(nil, &out, io.Discard), false, args)
	status = c.toEnd(p)
	_, err := p.Delete(c.ctx)
	c.must("delete exec "+exec, err)
	output, _ = out.heard()
	return output, status
}

func (c *client) terminal(id, exec string, rows, columns int, text string) (shown string, status int) {
	c.t.Helper()
	var out ears
	in, words := io.Pipe()
	defer words.Close()
	p := c.add(id, exec, c.streams(in, &out, nil, cio.WithTerminal), true, []string{"sh"})
	exited, err := p.Wait(c.ctx)
	c.must("wait", err)
	c.must("start exec "+exec, p.Start(c.ctx))
	c.must("resize", p.Resize(c.ctx, uint32(columns), uint32(rows)))
	_, err = io.WriteString(words, text)
	c.must("type", err)
	ended := <-exited
	c.must("wait", ended.Error())
	p.IO().Wait()
	_, err = p.Delete(c.ctx)
	c.must("delete exec "+exec, err)
	shown, _ = out.heard()
	return shown, int(ended.ExitCode())
}

func (c *client) pids(id string) (pids []int) {
	c.t.Helper()
	processes, err := c.task(id).Pids(c.ctx)
	c.must("list processes", err)
	for _, p := range processes {
		pids = append(pids, int(p.Pid))
	}
	return pids
}

func (c *client) memory(id string) uint64 {
	c.t.Helper()
	metric, err := c.task(id).Metrics(c.ctx)
	c.must("ask for statistics", err)
	message, err := typeurl.UnmarshalAny(metric.Data)
	c.must("read statistics", err)
	switch m := message.(type) {
	case *cgroup1.Metrics:
		if cgroups.Mode() != cgroups.Unified {
			return m.Memory.Usage.Usage
		}
	case *cgroup2.Metrics:
		if cgroups.Mode() == cgroups.Unified {
			return m.Memory.Usage
		}
	}
	c.t.Fatalf("the statistics are a %T", message)
	return 0
}

func (c *client) pause(id string)  { c.must("pause", c.task(id).Pause(c.ctx)) }
func (c *client) resume(id string) { c.must("resume", c.task(id).Resume(c.ctx)) }

func (c *client) status(id string) (pid int, status string) {
	c.t.Helper()
	task := c.task(id)
	answer, err := task.Status(c.ctx)
	c.must("status of "+id, err)
	return int(task.Pid()), string(answer.Status)
}

func (c *client) kill(id string, signal syscall.Signal) {
	c.t.Helper()
	c.must("kill "+id, c.task(id).Kill(c.ctx, signal))
}

// finish ends standard IO of a process that has ended.
func finish(io cio.IO) {
	io.Cancel()
	io.Wait()
	io.Close()
}

func (c *client) delete(id string) int {
	c.t.Helper()
	finish(c.io[id])
	status, err := c.task(id).Delete(c.ctx)
	c.must("delete the task of "+id, err)
	container, err := c.connection().LoadContainer(c.ctx, id)
	c.must("find container "+id, err)
	c.must("delete container "+id, container.Delete(c.ctx, containerd.WithSnapshotCleanup))
	return int(status.ExitCode())
}
