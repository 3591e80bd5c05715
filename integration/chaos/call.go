package main

// Calls to containerd, and whether what they answer can be explained by what has
// gone wrong at the time.

import (
	"context"
	"errors"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// callTime bounds one call. On an idle machine the slowest takes a second.
const callTime = 25 * time.Second

// answer is how a call ended.
type answer struct {
	err   error
	began time.Time

	// What explains an error: containerd or the shim was killed meanwhile, or
	// something else was wrong that this call had to do with.
	restarted, shimDead, disturbed bool

	// doubtful: nobody knows whether what was asked for was done.
	doubtful bool
}

func (a answer) ok() bool        { return a.err == nil }
func (a answer) explained() bool { return a.restarted || a.shimDead || a.disturbed }
func (a answer) is(class error) bool {
	return a.err != nil && errors.Is(a.err, class)
}

// call makes a call of a verb, again and again while containerd is not there when
// it begins. deadline, if not 0, is when the caller runs out of patience.
func (l *life) call(ctx context.Context, verb, exec string, deadline time.Duration, f func(context.Context, tasks.TasksClient) error) answer {
	if err := l.w.ready(ctx); err != nil {
		return answer{err: err, began: time.Now()}
	}
	a := answer{began: time.Now()}
	client, err := l.w.d.Client()
	if err != nil {
		a.err = err
	} else {
		limit := callTime
		if deadline > 0 {
			limit = deadline
		}
		bounded, cancel := context.WithTimeout(l.w.d.Context(ctx), limit)
		a.err = errgrpc.ToNative(f(bounded, client.TaskService()))
		cancel()
	}
	name := verb
	if exec != "" {
		name += " " + exec
	}
	if a.err == nil {
		l.note("%s: done after %s", name, time.Since(a.began).Truncate(time.Millisecond))
		return a
	}
	late := errdefs.IsDeadlineExceeded(a.err) || errdefs.IsCanceled(a.err) || strings.Contains(a.err.Error(), "context ")
	a.restarted = l.w.wasWrong(killContainerd, "", a.began)
	a.shimDead = l.w.shimKilled(l.plan.shim(), l.since)
	a.doubtful = a.restarted || late
	a.disturbed = deadline > 0 && late || l.disturbed(verb, a)
	l.note("%s: failed after %s: %v", name, time.Since(a.began).Truncate(time.Millisecond), a.err)
	if late && deadline == 0 && !a.explained() {
		l.w.violate(hanging, l.plan.ID, "%s is not answered within %s: %v", name, callTime, a.err)
		a.disturbed = true // told
	}
	return a
}

// disturbed tells whether the container's own faults explain an error.
func (l *life) disturbed(verb string, a answer) bool {
	if l.w.ordered(l.plan.ID, verb) {
		return true // the OCI runtime was killed
	}
	switch verb {
	case "create", "start", "exec", "exec start", "delete":
		if l.w.wasWrong(fullDisk, "bundles", a.began) {
			return true
		}
	}
	switch verb {
	case "create", "start", "exec start":
		// runc does not touch what is frozen.
		return l.w.wasWrong(freezeCgroup, l.plan.ID, a.began)
	}
	return false
}

// ordered says whether the plan has the runtime's call of that verb killed.
func (w *world) ordered(container, verb string) bool {
	if verb == "exec start" {
		verb = "exec"
	}
	for _, f := range w.plan.Faults {
		if f.Kind == killRuntime && f.Container == container && f.Verb == verb {
			return true
		}
	}
	return false
}

// patience is the deadline that the plan gives the first call of a verb.
func (l *life) patience(verb string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range l.w.plan.Faults {
		if f.Kind == hastyCaller && f.Container == l.plan.ID && f.Verb == verb && !l.used[i] {
			l.used[i] = true
			return max(f.For, time.Millisecond)
		}
	}
	return 0
}

// withClient does something that is no task's business until it works or ctx
// ends.
func (l *life) withClient(ctx context.Context, what string, f func(context.Context, *containerd.Client) error) error {
	for {
		began := time.Now()
		err := l.w.ready(ctx)
		if err == nil {
			var client *containerd.Client
			if client, err = l.w.d.Client(); err == nil {
				bounded, cancel := context.WithTimeout(l.w.d.Context(ctx), callTime)
				err = f(bounded, client)
				cancel()
			}
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		l.note("%s: failed after %s: %v", what, time.Since(began).Truncate(time.Millisecond), err)
		pause(ctx, 50*time.Millisecond)
	}
}
