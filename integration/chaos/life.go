package main

// One container as its client lives through it: made, created, started, waited
// for, deleted; what is interrupted is looked at and gone on with.

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatrun/cleat/integration/chaos/mark"
	"github.com/cleatrun/cleat/integration/image"
)

const (
	// lifeTime bounds the life of a container. On an idle machine none takes ten
	// seconds.
	lifeTime = 60 * time.Second

	// startFailed is the status of an exec whose start has failed, whatever it did
	// before it was killed for that.
	startFailed = 255

	// groupAnnotation is what containers have in common that share a shim.
	groupAnnotation = "io.containerd.runc.v2.group"

	// inside is where a container finds the guest and its marks.
	inside = "/chaos"
)

// life is one container's.
type life struct {
	w    *world
	plan containerPlan
	sink *sink
	page *mark.Page

	// hold, if not nil, is closed when the container may be ended.
	hold    <-chan struct{}
	reached func(container string, at step)
	running chan struct{} // closed when it was started, or never will be

	process *specs.Process
	rootfs  []*types.Mount
	since   time.Time // its first task was asked for

	execs sync.WaitGroup

	mu      sync.Mutex // guards what follows
	exits   map[uint32]uint32
	used    map[int]bool // faults of callers
	signal  syscall.Signal
	ended   bool // its init process has
	goneBad bool // a start has failed: it is killed, and ends how it likes
	again   bool // it was created more than once
}

func (w *world) newLife(c containerPlan) (*life, error) {
	l := &life{w: w, plan: c, exits: map[uint32]uint32{}, used: map[int]bool{}, running: make(chan struct{})}
	var err error
	if l.page, err = w.newMark(c.ID); err != nil {
		return nil, err
	}
	l.sink, err = w.newSink(c.ID, c.Runs.Sink)
	return l, err
}

func (w *world) newMark(name string) (*mark.Page, error) {
	path := filepath.Join(w.marks, name)
	if err := mark.Make(path); err != nil {
		return nil, err
	}
	return mark.Open(path)
}

func (l *life) note(format string, args ...any) { l.w.note(l.plan.ID, format, args...) }

// args are what a container or an exec runs.
func (p program) args(name string) []string {
	flag := map[bool]string{true: "1", false: "0"}
	stay := p.Stay.Milliseconds()
	if p.Stay < 0 {
		stay = -1
	}
	args := []string{inside + "/guest", inside + "/marks/" + name, name, flag[p.Sink == terminalSink]}
	errs := p.Err
	if p.Sink == terminalSink || p.Sink == fileSink {
		errs = 0 // both streams would be in one
	}
	for _, n := range []int64{p.Out, errs, p.Piece, p.Pause.Microseconds(), stay, int64(p.Code)} {
		args = append(args, strconv.FormatInt(n, 10))
	}
	return args
}

// live lives it all.
func (l *life) live(ctx context.Context) {
	pause(ctx, l.plan.After)
	if l.hold == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lifeTime)
		defer cancel()
	}
	running := sync.OnceFunc(func() { close(l.running) })
	defer running()
	if !l.create(ctx) {
		return
	}
	l.reached(l.plan.ID, created)
	waited := make(chan answerOfWait, 1)
	go func() { waited <- l.waitFor(ctx, "", l.page) }()
	l.reached(l.plan.ID, starting)
	if l.start(ctx) {
		l.note("runs")
		running()
		l.reached(l.plan.ID, started)
		for _, e := range l.plan.Execs {
			l.execs.Go(func() { l.exec(ctx, e) })
		}
		l.end(ctx)
	} else {
		l.mu.Lock()
		l.goneBad = true
		l.mu.Unlock()
		l.kill(ctx, syscall.SIGKILL)
	}
	wait := <-waited
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.reached(l.plan.ID, exited)
	l.execs.Wait()
	l.sink.stay()
	l.reached(l.plan.ID, deleting)
	l.delete(ctx, wait)
	l.unmake(ctx)
	if err := l.sink.finish(ctx); err != nil {
		l.w.violate(outputBad, l.plan.ID, "%v", err)
	}
	l.judge(wait)
}

// make makes the container, of which nothing runs yet. That is containerd's work
// alone, and it happens before anything goes wrong.
func (l *life) make(ctx context.Context) error {
	id := l.plan.ID
	spec := []oci.SpecOpts{
		oci.WithDefaultPathEnv, oci.WithProcessArgs(l.plan.Runs.args(id)...),
		oci.WithCgroup("/" + l.w.d.Namespace + "/" + id),
		oci.WithMounts([]specs.Mount{
			{Type: "bind", Source: l.w.cast.guest, Destination: inside + "/guest", Options: []string{"bind", "ro"}},
			{Type: "bind", Source: l.w.marks, Destination: inside + "/marks", Options: []string{"bind", "rw"}},
		}),
	}
	if l.plan.Runs.Sink == terminalSink {
		spec = append(spec, oci.WithTTY)
	}
	if l.plan.HostPID {
		spec = append(spec, oci.WithHostNamespace(specs.PIDNamespace))
	}
	if l.plan.Group != "" {
		spec = append(spec, oci.WithAnnotations(map[string]string{groupAnnotation: l.plan.Group}))
	}
	return l.withClient(ctx, "make", func(ctx context.Context, client *containerd.Client) error {
		img, err := client.GetImage(ctx, image.Name)
		if err != nil {
			return err
		}
		c, err := client.NewContainer(ctx, id, containerd.WithImage(img), containerd.WithNewSnapshot(id, img), containerd.WithNewSpec(spec...))
		if err != nil {
			return err
		}
		made, err := c.Spec(ctx)
		if err != nil {
			return err
		}
		mounts, err := client.SnapshotService("").Mounts(ctx, id)
		l.process, l.rootfs = made.Process, rootfs(mounts)
		return err
	})
}

func rootfs(mounts []mount.Mount) (list []*types.Mount) {
	for _, m := range mounts {
		list = append(list, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return list
}

// unmake removes what make has made.
func (l *life) unmake(ctx context.Context) {
	err := l.withClient(ctx, "unmake", func(ctx context.Context, client *containerd.Client) error {
		if err := client.ContainerService().Delete(ctx, l.plan.ID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err := client.SnapshotService("").Remove(ctx, l.plan.ID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		return nil
	})
	if err != nil {
		l.w.violate(leftOver, l.plan.ID, "the container cannot be removed: %v", err)
	}
}

// create creates the task. What fails is tried again.
func (l *life) create(ctx context.Context) bool {
	l.since = time.Now()
	l.reached(l.plan.ID, creating)
	doubtful := false // an attempt may still be under way, or being taken back
	for {
		a := l.call(ctx, "create", "", l.patience("create"), func(ctx context.Context, client tasks.TasksClient) error {
			r, err := client.Create(ctx, &tasks.CreateTaskRequest{
				ContainerID: l.plan.ID, Rootfs: l.rootfs, Stdout: l.sink.Stdout, Stderr: l.sink.Stderr, Terminal: l.sink.Terminal,
			})
			if err == nil {
				l.note("created as process %d", r.Pid)
			}
			return err
		})
		switch {
		case a.ok():
			return true
		case ctx.Err() != nil:
			l.w.violate(hanging, l.plan.ID, "it cannot be created: %v", a.err)
			return false
		case a.explained():
			doubtful = true
		case !doubtful:
			l.w.violate(refused, l.plan.ID, "create: %v", a.err)
			doubtful = true
		}
		l.mu.Lock()
		l.again = true
		l.mu.Unlock()
		// What is left of it goes first. There may be nothing.
		l.call(ctx, "delete what is left", "", 0, func(ctx context.Context, client tasks.TasksClient) error {
			client.Kill(ctx, &tasks.KillRequest{ContainerID: l.plan.ID, Signal: uint32(syscall.SIGKILL), All: true})
			_, err := client.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: l.plan.ID})
			return err
		})
		pause(ctx, 50*time.Millisecond)
	}
}

// start starts the task, and tells whether it runs, or has run.
func (l *life) start(ctx context.Context) bool { return l.startProcess(ctx, "start", "") }

func (l *life) startProcess(ctx context.Context, verb, exec string) bool {
	doubtful := false
	for ctx.Err() == nil {
		a := l.call(ctx, verb, exec, l.patience(map[string]string{"start": "start", "exec start": "exec"}[verb]), func(ctx context.Context, client tasks.TasksClient) error {
			r, err := client.Start(ctx, &tasks.StartRequest{ContainerID: l.plan.ID, ExecID: exec})
			if err == nil {
				l.note("started %s as process %d", exec, r.Pid)
			}
			return err
		})
		if a.ok() {
			return true
		}
		if exec != "" && l.isEnded() {
			return false // of a container that has ended nobody starts any
		}
		if !a.explained() && !doubtful {
			l.w.violate(refused, l.plan.ID, "%s %s: %v", verb, exec, a.err)
		}
		if a.shimDead {
			return false
		}
		if !a.doubtful && !doubtful && l.w.ordered(l.plan.ID, verb) {
			return false // the OCI runtime was killed
		}
		// It may have been started, or be still.
		status, err := l.status(ctx, exec)
		l.note("%s %s is in doubt: it is %s, %v", verb, exec, status, err)
		switch {
		case errdefs.IsNotFound(err):
			return false
		case err == nil && status != tasktypes.Status_CREATED:
			return true
		case doubtful && !a.doubtful:
			return false // it fails twice
		}
		doubtful = true
		pause(ctx, 50*time.Millisecond)
	}
	return false
}

func (l *life) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Marked by the guest, or told.
	return l.ended || l.page.Ending.Load() != 0 || l.signal == syscall.SIGKILL
}

// status asks for the state of a process, while containerd is there.
func (l *life) status(ctx context.Context, exec string) (status tasktypes.Status, err error) {
	for {
		a := l.call(ctx, "get", exec, 0, func(ctx context.Context, client tasks.TasksClient) error {
			r, err := client.Get(ctx, &tasks.GetRequest{ContainerID: l.plan.ID, ExecID: exec})
			if err == nil {
				status = r.Process.Status
			}
			return err
		})
		if a.ok() || ctx.Err() != nil || !a.restarted {
			return status, a.err
		}
	}
}

// end brings the container to its end as it is planned.
func (l *life) end(ctx context.Context) {
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-ctx.Done():
		}
	}
	if l.plan.Ends == byItself {
		return
	}
	pause(ctx, l.plan.EndsIn)
	if !l.plan.Overlap {
		l.execs.Wait()
	}
	if l.plan.Ends == bySigkill {
		l.kill(ctx, syscall.SIGKILL)
		return
	}
	// Before it catches the signal that would be lost.
	for l.page.Starts.Load() == 0 && ctx.Err() == nil {
		if l.w.shimKilled(l.plan.shim(), l.since) {
			return
		}
		pause(ctx, 10*time.Millisecond)
	}
	l.kill(ctx, syscall.SIGTERM)
}

// kill sends the init process a signal, until that has arrived.
func (l *life) kill(ctx context.Context, signal syscall.Signal) {
	for ctx.Err() == nil {
		l.mu.Lock()
		l.signal = signal
		l.mu.Unlock()
		a := l.call(ctx, "kill", "", 0, func(ctx context.Context, client tasks.TasksClient) error {
			_, err := client.Kill(ctx, &tasks.KillRequest{ContainerID: l.plan.ID, Signal: uint32(signal)})
			return err
		})
		switch {
		case a.ok(), a.shimDead, a.is(errdefs.ErrNotFound) && l.page.Ending.Load() != 0:
			return
		case a.is(errdefs.ErrNotFound):
			return // it has ended; the wait tells whether it may have
		case !a.explained():
			l.w.violate(refused, l.plan.ID, "kill: %v", a.err)
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// answerOfWait is how the wait for a process ended.
type answerOfWait struct {
	told   bool // status is its exit status
	status uint32
	dead   bool // its shim is, and with it the task
}

// waitFor waits for the end of a process.
func (l *life) waitFor(ctx context.Context, exec string, page *mark.Page) (w answerOfWait) {
	for {
		if err := l.w.ready(ctx); err != nil {
			l.w.violate(hanging, l.plan.ID, "wait %s: %v", exec, err)
			return w
		}
		began := time.Now()
		client, err := l.w.d.Client()
		if err == nil {
			var r *tasks.WaitResponse
			r, err = client.TaskService().Wait(l.w.d.Context(ctx), &tasks.WaitRequest{ContainerID: l.plan.ID, ExecID: exec})
			if err == nil {
				w.told, w.status = true, r.ExitStatus
				l.note("wait %s: %d", exec, r.ExitStatus)
				return w
			}
		}
		restarted := l.w.wasWrong(killContainerd, "", began)
		dead := l.w.shimKilled(l.plan.shim(), l.since)
		l.note("wait %s: failed: %v", exec, err)
		switch {
		case ctx.Err() != nil:
			l.w.violate(hanging, l.plan.ID, "the end of %s is not told (the process itself: started %d times, wrote %d + %d, ended %d)", orInit(exec),
				page.Starts.Load(), page.Out.Load(), page.Err.Load(), page.Ending.Load())
			return w
		case dead:
			// The task goes as soon as containerd has cleaned up.
			if _, err := l.status(ctx, ""); errdefs.IsNotFound(err) {
				w.dead = true
				return w
			}
		case restarted:
		case errdefs.IsNotFound(errgrpc.ToNative(err)):
			l.w.violate(exitLost, l.plan.ID, "%s is gone, and nobody has told how it ended: %v", orInit(exec), err)
			return w
		default:
			l.w.violate(refused, l.plan.ID, "wait %s: %v", exec, err)
			return w
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func orInit(exec string) string {
	if exec == "" {
		return "init"
	}
	return "exec " + exec
}

// delete deletes the task.
func (l *life) delete(ctx context.Context, wait answerOfWait) {
	doubtful := false
	for {
		var r *tasks.DeleteResponse
		a := l.call(ctx, "delete", "", l.patience("delete"), func(ctx context.Context, client tasks.TasksClient) (err error) {
			r, err = client.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: l.plan.ID})
			return err
		})
		switch {
		case a.ok():
			l.gave(r.Pid, r.ExitStatus)
			if wait.told && r.ExitStatus != wait.status {
				l.w.violate(exitWrong, l.plan.ID, "wait has said %d, delete says %d", wait.status, r.ExitStatus)
			}
			return
		case ctx.Err() != nil:
			l.w.violate(hanging, l.plan.ID, "it cannot be deleted: %v", a.err)
			return
		case a.is(errdefs.ErrNotFound):
			if !doubtful && !a.explained() && !wait.dead {
				l.w.violate(exitLost, l.plan.ID, "it is gone before it is deleted: %v", a.err)
			}
			return
		case a.explained(), doubtful:
			doubtful = true
		default:
			l.w.violate(refused, l.plan.ID, "delete: %v", a.err)
			doubtful = true
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// gave notes a status that a caller was given.
func (l *life) gave(pid, status uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exits[pid] = status
}

// judge tells what is wrong with the end and the output of the container.
func (l *life) judge(wait answerOfWait) {
	dead := l.w.shimKilled(l.plan.shim(), l.since)
	l.mu.Lock()
	killed := l.signal == syscall.SIGKILL
	mayFail := l.goneBad || l.w.ordered(l.plan.ID, "start") || l.w.ordered(l.plan.ID, "create")
	l.mu.Unlock()
	if wait.told {
		l.judgeExit("init", l.page, wait.status, killed || dead, mayFail)
	}
	l.judgeProgram("init", l.page, killed, dead, mayFail, dead)
	t := truth{page: l.page, runs: l.plan.Runs, cut: dead, killed: l.page.Ending.Load() == 0, again: l.again}
	l.w.mu.Lock()
	t.loggers = l.w.killed[l.plan.ID]
	l.w.mu.Unlock()
	t.full = l.w.wasWrong(fullDisk, "logs", l.since)
	for _, v := range l.sink.judge(t) {
		l.w.violate(v.Category, l.plan.ID, "%s", v.Text)
	}
	l.page.Close()
}

// judgeExit tells whether a status can be that of a process, by what the process
// itself has noted.
func (l *life) judgeExit(what string, page *mark.Page, status uint32, mayBeKilled, mayFail bool) {
	ending := page.Ending.Load()
	switch {
	case ending != 0 && status == uint32(ending-1):
	case status == 137 && mayBeKilled:
	case mayFail && (page.Starts.Load() == 0 || status == startFailed):
	default:
		how := "it was killed"
		if ending != 0 {
			how = fmt.Sprintf("it ended with %d", ending-1)
		} else if !mayBeKilled {
			how = "it has not ended by itself, and nobody has killed it"
		}
		l.w.violate(exitWrong, l.plan.ID, "%s is said to have ended with %d, but %s", what, status, how)
	}
}

// judgeProgram tells whether a program could do what it was to. unread tells that
// nobody need have read what it wrote.
func (l *life) judgeProgram(what string, page *mark.Page, killed, dead, mayFail, unread bool) {
	if n := page.Starts.Load(); n > 1 || n == 0 && !dead && !mayFail && !killed {
		l.w.violate(refused, l.plan.ID, "%s was run %d times", what, n)
	}
	if errno := page.Failed.Load(); errno != 0 && !unread {
		l.w.violate(outputBad, l.plan.ID, "a write of %s fails: %v", what, syscall.Errno(errno))
	}
}

// exec runs an exec in the container.
func (l *life) exec(ctx context.Context, e execPlan) {
	pause(ctx, e.After)
	if l.isEnded() {
		return
	}
	page, err := l.w.newMark(e.ID)
	var sink *sink
	if err == nil {
		sink, err = l.w.newSink(e.ID, e.Runs.Sink)
	}
	if err != nil {
		l.w.violate(hanging, l.plan.ID, "exec %s: %v", e.ID, err)
		return
	}
	defer page.Close()
	process := *l.process
	process.Args, process.Terminal = e.Runs.args(e.ID), sink.Terminal
	added := l.add(ctx, e, process, sink)
	var wait answerOfWait
	ran := false
	if added {
		waited := make(chan answerOfWait, 1)
		if ran = l.startProcess(ctx, "exec start", e.ID); ran {
			go func() { waited <- l.waitFor(ctx, e.ID, page) }()
			wait = <-waited
		}
	}
	sink.stay()
	if added {
		l.deleteExec(ctx, e.ID, wait, ran)
	}
	if err := sink.finish(ctx); err != nil {
		l.w.violate(outputBad, l.plan.ID, "%v", err)
	}
	dead := l.w.shimKilled(l.plan.shim(), l.since)
	mayFail := l.w.ordered(l.plan.ID, "exec start") || !ran
	if wait.told {
		l.judgeExit("exec "+e.ID, page, wait.status, l.isEnded() || dead || mayFail, mayFail)
	}
	// crun lets a process run whose pid it could not write down, and fails.
	l.judgeProgram("exec "+e.ID, page, l.isEnded(), dead, mayFail, dead || !ran)
	for _, v := range sink.judge(truth{page: page, runs: e.Runs, cut: dead || !ran || l.w.ordered(l.plan.ID, "exec start"), killed: page.Ending.Load() == 0}) {
		l.w.violate(v.Category, l.plan.ID, "%s", v.Text)
	}
}

// add adds an exec, and tells whether it is there.
func (l *life) add(ctx context.Context, e execPlan, process specs.Process, s *sink) bool {
	spec, err := typeurl.MarshalAnyToProto(&process)
	if err != nil {
		l.w.violate(refused, l.plan.ID, "exec %s: %v", e.ID, err)
		return false
	}
	for ctx.Err() == nil {
		a := l.call(ctx, "exec", e.ID, 0, func(ctx context.Context, client tasks.TasksClient) error {
			_, err := client.Exec(ctx, &tasks.ExecProcessRequest{
				ContainerID: l.plan.ID, ExecID: e.ID, Spec: spec, Stdout: s.Stdout, Stderr: s.Stderr, Terminal: s.Terminal,
			})
			return err
		})
		switch {
		case a.ok():
			return true
		case a.is(errdefs.ErrAlreadyExists):
			return true // by an attempt whose answer was lost
		case a.shimDead, l.isEnded():
			return false
		case !a.explained():
			l.w.violate(refused, l.plan.ID, "exec %s: %v", e.ID, a.err)
			return false
		}
		pause(ctx, 20*time.Millisecond)
	}
	return false
}

// deleteExec deletes an exec that has ended, or was never started.
func (l *life) deleteExec(ctx context.Context, id string, wait answerOfWait, ran bool) {
	doubtful := false
	for {
		var r *tasks.DeleteResponse
		a := l.call(ctx, "exec delete", id, 0, func(ctx context.Context, client tasks.TasksClient) (err error) {
			r, err = client.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: l.plan.ID, ExecID: id})
			return err
		})
		switch {
		case a.ok():
			if ran {
				l.gave(r.Pid, r.ExitStatus)
			}
			if wait.told && r.ExitStatus != wait.status {
				l.w.violate(exitWrong, l.plan.ID, "wait has said %d, the delete of exec %s says %d", wait.status, id, r.ExitStatus)
			}
			return
		case ctx.Err() != nil:
			l.w.violate(hanging, l.plan.ID, "exec %s cannot be deleted: %v", id, a.err)
			return
		case a.is(errdefs.ErrNotFound):
			if !doubtful && !a.explained() {
				l.w.violate(exitLost, l.plan.ID, "exec %s is gone before it is deleted: %v", id, a.err)
			}
			return
		case a.explained():
			doubtful = true
		case !ran && !doubtful:
			doubtful = true // its start may still be under way, and end it
		default:
			l.w.violate(refused, l.plan.ID, "delete exec %s: %v", id, a.err)
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}
