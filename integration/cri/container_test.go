package cri

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/image"
)

// forever is what a container runs that has nothing to do but be there. It ends
// with status 9 when it is asked to.
var forever = []string{"sh", "-c", "trap 'exit 9' TERM; sleep 100000 & wait"}

// container is a container of a pod.
type container struct {
	p      *pod
	id     string
	config *cri.ContainerConfig
}

type containerOption func(*cri.ContainerConfig)

// run creates and starts a container.
func (p *pod) run(name string, args []string, options ...containerOption) *container {
	p.t.Helper()
	c := p.create(name, args, options...)
	c.start()
	return c
}

// create creates a container. Its namespaces are as the pod's options say.
func (p *pod) create(name string, args []string, options ...containerOption) *container {
	p.t.Helper()
	c, err := p.tryCreate(name, args, options...)
	if err != nil {
		p.t.Fatalf("create container %s: %v", name, err)
	}
	return c
}

// tryCreate creates a container, which may be refused.
func (p *pod) tryCreate(name string, args []string, options ...containerOption) (*container, error) {
	p.t.Helper()
	c := &container{p: p, config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name},
		Image:    &cri.ImageSpec{Image: image.Name},
		Command:  args,
		LogPath:  name + ".log",
		Linux: &cri.LinuxContainerConfig{
			Resources:       &cri.LinuxContainerResources{},
			SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: namespaces(p.config)},
		},
	}}
	for _, option := range options {
		option(c.config)
	}
	answer, err := p.runtime().CreateContainer(p.ctx, &cri.CreateContainerRequest{PodSandboxId: p.id, Config: c.config, SandboxConfig: p.config})
	if err != nil {
		return nil, err
	}
	c.id = answer.ContainerId
	p.names = append(p.names, c.id)
	return c, nil
}

func (c *container) name() string { return c.config.Metadata.Name }

func (c *container) start() {
	c.p.t.Helper()
	if _, err := c.p.runtime().StartContainer(c.p.ctx, &cri.StartContainerRequest{ContainerId: c.id}); err != nil {
		c.p.t.Fatalf("start container %s: %v", c.name(), err)
	}
}

// stop stops the container with a grace in seconds and says how long it took.
func (c *container) stop(grace int64) time.Duration {
	c.p.t.Helper()
	began := time.Now()
	if _, err := c.p.runtime().StopContainer(c.p.ctx, &cri.StopContainerRequest{ContainerId: c.id, Timeout: grace}); err != nil {
		c.p.t.Fatalf("stop container %s: %v", c.name(), err)
	}
	return time.Since(began)
}

func (c *container) remove() {
	c.p.t.Helper()
	if _, err := c.p.runtime().RemoveContainer(c.p.ctx, &cri.RemoveContainerRequest{ContainerId: c.id}); err != nil {
		c.p.t.Fatalf("remove container %s: %v", c.name(), err)
	}
}

func (c *container) status() *cri.ContainerStatus {
	c.p.t.Helper()
	status, _ := c.verbose()
	return status
}

func (c *container) pid() int {
	c.p.t.Helper()
	_, info := c.verbose()
	return info.PID
}

func (c *container) verbose() (*cri.ContainerStatus, *inside) {
	c.p.t.Helper()
	answer, err := c.p.runtime().ContainerStatus(c.p.ctx, &cri.ContainerStatusRequest{ContainerId: c.id, Verbose: true})
	if err != nil {
		c.p.t.Fatalf("status of container %s: %v", c.name(), err)
	}
	return answer.Status, readInside(c.p.t, answer.Info)
}

// exited waits until the container has ended.
func (c *container) exited() *cri.ContainerStatus {
	c.p.t.Helper()
	var status *cri.ContainerStatus
	eventually(c.p.t, func() error {
		if status = c.status(); status.State != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s is %s", c.name(), status.State)
		}
		return nil
	})
	return status
}

// exec runs a command in the container and waits for it, within a number of
// seconds unless that is 0.
func (c *container) exec(limit int64, args ...string) (*cri.ExecSyncResponse, error) {
	return c.p.runtime().ExecSync(c.p.ctx, &cri.ExecSyncRequest{ContainerId: c.id, Cmd: args, Timeout: limit})
}

// output is what a command in the container writes. It must succeed.
func (c *container) output(args ...string) string {
	c.p.t.Helper()
	answer, err := c.exec(0, args...)
	if err != nil || answer.ExitCode != 0 {
		c.p.t.Fatalf("exec %q in %s: %v, %v", args, c.name(), answer, err)
	}
	return string(answer.Stdout)
}

// log is the file of the container's log.
func (c *container) log() string { return filepath.Join(c.p.config.LogDirectory, c.config.LogPath) }

// wrote waits until the container's log has a line with this text.
func (c *container) wrote(text string) {
	c.p.t.Helper()
	eventually(c.p.t, func() error {
		entries, err := readLog(c.log())
		if err != nil {
			return err
		}
		for _, e := range entries {
			if strings.Contains(e.text, text) {
				return nil
			}
		}
		return fmt.Errorf("container %s has not written %q but %v", c.name(), text, entries)
	})
}

// resources sets the container's.
func resources(r *cri.LinuxContainerResources) containerOption {
	return func(c *cri.ContainerConfig) { c.Linux.Resources = r }
}

// volume mounts a folder of the host.
func volume(host, inside string) containerOption {
	return func(c *cri.ContainerConfig) {
		c.Mounts = append(c.Mounts, &cri.Mount{HostPath: host, ContainerPath: inside})
	}
}
