package cri

// The containers of a pod and the one shim that serves them.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shimPID is the process of the shim that serves the pod, as the shim itself
// says when it is asked about one of the pod's containers, or the pod's own.
func (p *pod) shimPID(container string) int {
	p.t.Helper()
	shim, err := p.d.Shim(p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	defer shim.Close()
	answer, err := shim.Connect(p.ctx, &task.ConnectRequest{ID: container})
	if status.Code(err) == codes.Unimplemented { // as by the own shims of 1.6 and 1.7
		answer, err = shim.ConnectV2(p.ctx, &task.ConnectRequest{ID: container})
	}
	if err != nil {
		p.t.Fatalf("connect to the shim of pod %s for %s: %v", p.config.Metadata.Name, container, err)
	}
	return int(answer.ShimPid)
}

// shims lists the processes of shims that were started for the pod or for one of
// its containers.
func (p *pod) shims() []int {
	var pids []int
	for _, process := range p.d.Processes() {
		if !strings.Contains(process.Command, "containerd-shim") {
			continue
		}
		for _, id := range p.names {
			if strings.Contains(process.Command, "-id "+id) {
				pids = append(pids, process.PID)
			}
		}
	}
	return pids
}

// parent of a process.
func parent(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	state, ppid := "", 0
	if _, err := fmt.Sscan(after, &state, &ppid); err != nil {
		t.Fatalf("%s: %v", stat, err)
	}
	return ppid
}

// oneShim fails the test unless one shim process serves the pod and these
// containers, and is the parent of their processes.
func (p *pod) oneShim(containers ...*container) int {
	p.t.Helper()
	shims := p.shims()
	if len(shims) != 1 {
		p.t.Fatalf("pod %s has the shims %v, want one", p.config.Metadata.Name, shims)
	}
	_, info := p.status()
	inits := map[string]int{p.id: info.PID}
	for _, c := range containers {
		inits[c.id] = c.pid()
	}
	for id, init := range inits {
		if got := p.shimPID(id); got != shims[0] {
			p.t.Errorf("%s is served by process %d, want %d", id, got, shims[0])
		}
		if got := parent(p.t, init); got != shims[0] {
			p.t.Errorf("the first process of %s, %d, is a child of %d, want of %d", id, init, got, shims[0])
		}
	}
	return shims[0]
}

// A pod has one shim, whatever handler it is run by and however many containers
// it has; so has a container that comes later, in the place of one that has ended.
func TestPodHasOneShim(t *testing.T) {
	t.Parallel()
	for _, handler := range []string{typed, plain} {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			d := sharedDaemon(t)
			p := runPod(t, d, handler, "shim-"+handler)
			first, second := p.run("first", forever), p.run("second", forever)
			third := p.run("third", forever)
			shim := p.oneShim(first, second, third)

			binary, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", shim))
			want, unresolved := filepath.EvalSymlinks(shimProgram())
			if err != nil || unresolved != nil || binary != want {
				t.Errorf("the shim is %s, %v, want %s", binary, err, want)
			}

			// One ends by itself, one is asked to, and one goes on.
			if answer, err := second.exec(0, "kill", "1"); err != nil { // it may die with it
				t.Fatalf("end the second container: %v, %v", answer, err)
			}
			if status := second.exited(); status.ExitCode != 9 || status.Reason != "Error" {
				t.Errorf("the second container ended with %d, %s", status.ExitCode, status.Reason)
			}
			third.stop(20)
			again := p.create("second", forever, func(c *cri.ContainerConfig) {
				c.Metadata.Attempt = 1
				c.LogPath = "second.1.log"
			})
			second.remove()
			again.start()
			if got := p.oneShim(first, again); got != shim {
				t.Errorf("the shim was process %d and is %d", shim, got)
			}
			if out := again.output("echo", "again"); out != "again\n" {
				t.Errorf("the container answers %q", out)
			}

			sockets, err := filepath.Glob(filepath.Join(d.Sockets(), "*"))
			if err != nil || len(sockets) == 0 {
				t.Errorf("sockets: %v, %v", sockets, err)
			}
			p.end()
			if err := gone(shim); err != nil {
				t.Errorf("the shim is not gone with its pod: %v", err)
			}
		})
	}
}
