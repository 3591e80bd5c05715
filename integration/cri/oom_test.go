package cri

import (
	"fmt"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// eater takes more memory than little allows.
const eater = "dd if=/dev/zero of=/dev/null bs=256M count=1"

var little = resources(&cri.LinuxContainerResources{MemoryLimitInBytes: 24 << 20, MemorySwapLimitInBytes: 24 << 20})

// kubectl describe says OOMKilled of a container that the kernel has killed for
// want of memory, whether it was the first process or one of its children.
func TestOOMKilled(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "oom")
	for _, test := range []struct {
		name, script string
		code         int32
		reason       string
	}{
		{"init", "exec " + eater, 137, "OOMKilled"},
		{"child", eater + "; echo the child ended with $?; exit 3", 3, "OOMKilled"},
		{"neither", "exit 137", 137, "Error"},
		{"success", eater + "; exit 0", 0, "OOMKilled"},
	} {
		c := p.run(test.name, []string{"sh", "-c", test.script}, little)
		status := c.exited()
		eventually(t, func() error { // containerd itself looks at OOMs and exits at the same time
			if status = c.status(); status.Reason != test.reason {
				return fmt.Errorf("%s: the reason is %q, want %q", test.name, status.Reason, test.reason)
			}
			return nil
		})
		if status.ExitCode != test.code {
			t.Errorf("%s: ended with %d, want %d", test.name, status.ExitCode, test.code)
		}
	}

	// One that goes on is not ended, and others of the pod have no part in it.
	survivor := p.run("survivor", []string{"sh", "-c", "trap 'exit 9' TERM; " + eater + "; echo survived; sleep 100000 & wait"}, little)
	bystander := p.run("bystander", forever, little)
	survivor.wrote("survived")
	if status := survivor.status(); status.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the survivor is %s", status.State)
	}
	bystander.stop(0)
	if status := bystander.status(); strings.Contains(status.Reason, "OOM") {
		t.Errorf("the bystander ended by %s", status.Reason)
	}
	p.end()
}
