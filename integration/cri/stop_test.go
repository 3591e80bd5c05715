package cri

import (
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/image"
	"github.com/cleatrun/cleat/integration/kernel"
	"github.com/cleatrun/cleat/integration/tools"
)

// signalling is an image that asks for SIGUSR1 as the signal to stop.
const signalling = "cleat.test/signalling:latest"

// signals is a container that tells which signal has stopped it.
var signals = []string{"sh", "-c", "trap 'exit 8' USR1; trap 'exit 9' TERM; echo ready; sleep 100000 & wait"}

// importSignalling brings the image to the pod's containerd.
func importSignalling(t *testing.T, p *pod) {
	t.Helper()
	img, err := image.New(programs.Busybox)
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.Config(img, v1.Config{Env: []string{"PATH=/bin"}, StopSignal: "SIGUSR1"}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := image.WriteFile(img, signalling, file); err != nil {
		t.Fatal(err)
	}
	if out, err := p.d.Ctr(p.ctx, "images", "import", file).CombinedOutput(); err != nil {
		t.Fatalf("import the image: %v: %s", err, out)
	}
	p.knows(signalling)
}

// A container that ends when it is asked to is not waited for any longer, and
// one that does not is killed when its grace is over.
func TestStopWithGrace(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "stop")
	importSignalling(t, p)
	for _, test := range []struct {
		name     string
		args     []string
		grace    int64
		image    string
		signal   cri.Signal
		code     int32
		from, to time.Duration // how long it may take
	}{
		{name: "willing", args: forever, grace: 600, code: 9, to: testTime},
		{name: "deaf", args: []string{"sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"}, grace: 1, code: 137, from: time.Second, to: testTime},
		{name: "impatient", args: forever, grace: 0, code: 137, to: testTime},
		{name: "image-signal", args: signals, image: signalling, grace: 600, code: 8, to: testTime},
		{name: "own-signal", args: signals, grace: 600, signal: cri.Signal_SIGNAL_SIGUSR1, code: 8, to: testTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			if test.name == "willing" || test.name == "impatient" {
				args = []string{"sh", "-c", "trap 'exit 9' TERM; echo ready; sleep 100000 & wait"}
			}
			c := p.run(test.name, args, func(c *cri.ContainerConfig) {
				c.StopSignal = test.signal
				if test.image != "" {
					c.Image.Image = test.image
				}
			})
			c.wrote("ready")
			pids := kernel.CgroupPIDs(p.config.Linux.CgroupParent + "/" + c.id)
			took := c.stop(test.grace)
			if took < test.from || took > test.to {
				t.Errorf("stopping took %s", took)
			}
			status := c.status()
			older := test.signal != 0 && programs.Release.Older("2.3") // it does not read the field
			if older {
				test.code = 9
			}
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
			if older && !t.Failed() {
				t.Skip(tools.Cannot + "a container whose stop_signal is SIGUSR1 was sent SIGTERM")
			}
		})
	}
	p.end()
}
