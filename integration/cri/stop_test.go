package cri

import (
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/kernel"
)

// A container that ends when it is asked to is not waited for any longer, and
// one that does not is killed when its grace is over.
func TestStopWithGrace(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "stop")
	for _, test := range []struct {
		name     string
		args     []string
		grace    int64
		signal   cri.Signal
		code     int32
		from, to time.Duration // how long it may take
	}{
		{name: "willing", args: forever, grace: 600, code: 9, to: testTime},
		{name: "deaf", args: []string{"sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"}, grace: 1, code: 137, from: time.Second, to: testTime},
		{name: "impatient", args: forever, grace: 0, code: 137, to: testTime},
		{name: "own-signal", args: []string{"sh", "-c", "trap 'exit 8' USR1; echo ready; sleep 100000 & wait"}, grace: 600, signal: cri.Signal_SIGNAL_SIGUSR1, code: 8, to: testTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if test.name == "willing" || test.name == "impatient" {
				args = []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 100000 & wait"}
			}
			c := p.run(test.name, args, func(c *cri.ContainerConfig) { c.StopSignal = test.signal })
			c.wrote("ready")
			pids := kernel.CgroupPIDs(p.config.Linux.CgroupParent + "/" + c.id)
			took := c.stop(test.grace)
			if took < test.from || took > test.to {
				t.Errorf("stopping took %s", took)
			}
			status := c.status()
			if status.State != cri.ContainerState_CONTAINER_EXITED || status.ExitCode != test.code || status.Reason != "Error" {
				t.Errorf("the container is %s, ended with %d, %s; want %d", status.State, status.ExitCode, status.Reason, test.code)
			}
			if status.FinishedAt < status.StartedAt || status.StartedAt < status.CreatedAt || status.CreatedAt == 0 {
				t.Errorf("times of creation, start and end: %d, %d, %d", status.CreatedAt, status.StartedAt, status.FinishedAt)
			}
			if err := gone(pids...); len(pids) == 0 || err != nil {
				t.Errorf("of the processes %v: %v", pids, err)
			}
			c.stop(0) // again, for nothing
			c.remove()
		})
	}
	p.end()
}
