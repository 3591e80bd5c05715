package cri

// Pods and their containers, as a kubelet makes them.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/kernel"
	"github.com/cleatrun/cleat/integration/poll"
)

// pod is a pod that runs.
type pod struct {
	t      *testing.T
	ctx    context.Context
	d      *daemon.Daemon
	id     string
	config *cri.PodSandboxConfig
	names  []string // ids of the pod and all its containers ever
}

type podOption func(*cri.PodSandboxConfig)

// runPod runs a pod without containers, in the host's network unless an option
// says otherwise. What is left of it at the end of the test is removed.
func runPod(t *testing.T, d *daemon.Daemon, handler, name string, options ...podOption) *pod {
	t.Helper()
	p := newPod(t, d, name, options...)
	if err := p.tryRun(handler); err != nil {
		t.Fatalf("run pod %s: %v", name, err)
	}
	return p
}

// tryRun runs a pod, which may be refused.
func (p *pod) tryRun(handler string) error {
	p.t.Helper()
	answer, err := p.runtime().RunPodSandbox(p.ctx, &cri.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler})
	if err != nil {
		return err
	}
	p.id = answer.PodSandboxId
	p.names = append(p.names, p.id)
	return nil
}

// newPod is what runPod asks containerd for.
func newPod(t *testing.T, d *daemon.Daemon, name string, options ...podOption) *pod {
	t.Helper()
	p := &pod{t: t, d: d, ctx: bounded(t), config: &cri.PodSandboxConfig{
		Metadata:  &cri.PodSandboxMetadata{Name: name, Uid: "uid-" + name, Namespace: "tests"},
		DnsConfig: &cri.DNSConfig{Servers: []string{"127.0.0.1"}}, // the host may have none
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    "/" + d.Namespace + "/" + name,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}},
		},
	}}
	var err error
	if p.config.LogDirectory, err = os.MkdirTemp(d.Dir, "log-"); err != nil {
		t.Fatal(err)
	}
	for _, option := range options {
		option(p.config)
	}
	p.knows(image.Name, pauseImage)
	t.Cleanup(p.cleanup)
	return p
}

// knows waits until containerd has learnt of imported images, which is only in a
// while.
func (p *pod) knows(names ...string) {
	p.t.Helper()
	images := cri.NewImageServiceClient(conn(p.t, p.d))
	eventually(p.t, func() error {
		for _, name := range names {
			status, err := images.ImageStatus(p.ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
			if err == nil && status.Image == nil {
				err = fmt.Errorf("containerd does not know the image %s yet", name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// own gives the pod a network of its own.
func own(c *cri.PodSandboxConfig) { namespaces(c).Network = cri.NamespaceMode_POD }

func namespaces(c *cri.PodSandboxConfig) *cri.NamespaceOption {
	return c.Linux.SecurityContext.NamespaceOptions
}

// runtime asks containerd for pods and containers.
func (p *pod) runtime() cri.RuntimeServiceClient {
	p.t.Helper()
	return cri.NewRuntimeServiceClient(conn(p.t, p.d))
}

// conn is a connection to containerd. It must not be kept beyond a Kill.
func conn(t *testing.T, d *daemon.Daemon) grpc.ClientConnInterface {
	t.Helper()
	client, err := d.Client()
	if err != nil {
		t.Fatal(err)
	}
	return client.Conn().(grpc.ClientConnInterface)
}

// cleanup removes whatever is left, after a test that has failed too.
func (p *pod) cleanup() {
	if p.t.Failed() {
		p.t.Logf("containerd and the shims wrote of the pod:\n%s", p.told())
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	if client, err := p.d.Client(); err == nil && p.id != "" {
		c := cri.NewRuntimeServiceClient(client.Conn().(grpc.ClientConnInterface))
		c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id})
		c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id})
	}
	p.removeCgroup()
}

// told is what has been written about the pod.
func (p *pod) told() string {
	var all []string
	for line := range strings.Lines(p.d.Log()) {
		if slices.ContainsFunc(p.names, func(id string) bool { return strings.Contains(line, id) }) {
			all = append(all, line)
		}
	}
	return strings.Join(all[max(0, len(all)-40):], "")
}

// removeCgroup removes the pod's cgroup, as the kubelet does that makes it.
func (p *pod) removeCgroup() {
	hierarchies, _ := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	for _, h := range hierarchies {
		os.Remove(filepath.Join(h.Mountpoint, p.config.Linux.CgroupParent))
	}
}

// stop stops the pod.
func (p *pod) stop() {
	p.t.Helper()
	if _, err := p.runtime().StopPodSandbox(p.ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Fatalf("stop pod %s: %v", p.config.Metadata.Name, err)
	}
}

// end stops and removes the pod and looks that nothing is left of it.
func (p *pod) end() {
	p.t.Helper()
	p.stop()
	if _, err := p.runtime().RemovePodSandbox(p.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		p.t.Fatalf("remove pod %s: %v", p.config.Metadata.Name, err)
	}
	eventually(p.t, func() error {
		p.removeCgroup()
		var left []string
		for _, line := range p.d.Leftovers(p.ctx) {
			if strings.Contains(line, p.config.Linux.CgroupParent) ||
				slices.ContainsFunc(p.names, func(id string) bool { return strings.Contains(line, id) }) {
				left = append(left, line)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("left over of pod %s:\n  %s", p.config.Metadata.Name, strings.Join(left, "\n  "))
		}
		return nil
	})
}

// pids lists the processes of the pod: of its cgroup and all below.
func (p *pod) pids() []int { return kernel.CgroupPIDs(p.config.Linux.CgroupParent) }

// status of the pod, with what containerd tells to those who debug it.
func (p *pod) status() (*cri.PodSandboxStatus, *inside) {
	p.t.Helper()
	answer, err := p.runtime().PodSandboxStatus(p.ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
	if err != nil {
		p.t.Fatalf("status of pod %s: %v", p.config.Metadata.Name, err)
	}
	return answer.Status, readInside(p.t, answer.Info)
}

// inside is a part of what containerd tells of a pod or a container to those who
// debug it.
type inside struct {
	PID         int `json:"pid"`
	RuntimeSpec struct {
		Process struct {
			Env []string `json:"env"`
		} `json:"process"`
	} `json:"runtimeSpec"`
}

func readInside(t *testing.T, info map[string]string) *inside {
	t.Helper()
	var i inside
	if err := json.Unmarshal([]byte(info["info"]), &i); err != nil {
		t.Fatalf("containerd's information %v: %v", info, err)
	}
	return &i
}

// bounded is the context of a test, with an end.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// eventually is poll.Until within settleTime, for what must come to hold.
func eventually(t *testing.T, holds func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settleTime)
	defer cancel()
	if err := poll.Until(ctx, holds); err != nil {
		t.Fatal(err)
	}
}

// gone says whether processes have all ended.
func gone(pids ...int) error {
	var there []error
	for _, pid := range pids {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
			there = append(there, fmt.Errorf("process %d is there: %s", pid, stat))
		}
	}
	return errors.Join(there...)
}

// sharedDaemon is the containerd that tests share.
func sharedDaemon(t *testing.T) *daemon.Daemon {
	t.Helper()
	d, err := startShared()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// ownDaemon is a containerd for one test.
func ownDaemon(t *testing.T, config daemon.Config) *daemon.Daemon {
	t.Helper()
	d, err := daemon.Start(bounded(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
	return d
}
