package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerd is killed under a pod. What ends while it is away is told right
// when it is back, what goes on goes on, and the log has it all.
func TestContainerdIsKilledUnderAPod(t *testing.T) {
	t.Parallel()
	for _, handler := range []string{typed, plain} {
		t.Run(handler, func(t *testing.T) {
			t.Parallel()
			d := ownDaemon(t, config())
			p := runPod(t, d, handler, "restart", own)
			signals := t.TempDir()
			// Each acts when a file of its name appears.
			script := func(then string) []string {
				return []string{"sh", "-c", "until [ -e /signals/$NAME ]; do sleep 0.02; done; " + then}
			}
			run := func(name, then string, options ...containerOption) *container {
				return p.run(name, script(then), append([]containerOption{volume(signals, "/signals"), func(c *cri.ContainerConfig) {
					c.Envs = append(c.Envs, &cri.KeyValue{Key: "NAME", Value: []byte(name)})
				}}, options...)...)
			}
			const lines = 500 // less than a pipe holds
			ends := run("ends", "echo last words; exit 7")
			killed := run("killed", eater, little)
			writes := run("writes", fmt.Sprintf("for i in $(seq %d); do echo line $i; done; touch /signals/written; sleep 100000", lines))
			stays := run("stays", "exit 5")
			pids := map[*container]int{}
			for _, c := range []*container{ends, killed, writes, stays} {
				pids[c] = c.pid()
			}
			shim := p.oneShim(ends, killed, writes, stays)

			if err := d.Kill(); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*container{ends, killed, writes} {
				if err := os.WriteFile(filepath.Join(signals, c.name()), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, func() error {
				_, err := os.Stat(filepath.Join(signals, "written"))
				return err
			})
			eventually(t, func() error { return gone(pids[ends], pids[killed]) })
			runAgain(t, p)

			for _, test := range []struct {
				c    *container
				code int32
			}{{ends, 7}, {killed, 137}} {
				if status := test.c.exited(); status.ExitCode != test.code || status.FinishedAt < status.StartedAt {
					t.Errorf("%s ended with %d, %s, at %d, want %d", test.c.name(), status.ExitCode, status.Reason, status.FinishedAt, test.code)
				}
			}
			for _, c := range []*container{writes, stays} {
				if status := c.status(); status.State != cri.ContainerState_CONTAINER_RUNNING {
					t.Errorf("%s is %s", c.name(), status.State)
				} else if got := c.pid(); got != pids[c] {
					t.Errorf("%s was process %d and is %d", c.name(), pids[c], got)
				}
			}
			eventually(t, func() error {
				entries, err := readLog(writes.log())
				if err != nil {
					return err
				}
				return numbered(texts(entries, "stdout"), lines)
			})

			// The pod is as good as before.
			if out := stays.output("echo", "hello"); out != "hello\n" {
				t.Errorf("an exec writes %q", out)
			}
			again := p.create("ends", forever, func(c *cri.ContainerConfig) { c.Metadata.Attempt = 1 })
			again.start()
			if got := p.oneShim(writes, stays, again); got != shim {
				t.Errorf("the shim was process %d and is %d", shim, got)
			}
			if err := os.WriteFile(filepath.Join(signals, "stays"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if status := stays.exited(); status.ExitCode != 5 {
				t.Errorf("it ended with %d, want 5", status.ExitCode)
			}
			p.end()
		})
	}
}

// The pod's own process ends while containerd is away.
func TestPodEndsWhileContainerdIsAway(t *testing.T) {
	t.Parallel()
	d := ownDaemon(t, config())
	p := runPod(t, d, typed, "away", own)
	c := p.run("main", forever)
	_, info := p.status()
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(info.PID)
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	runAgain(t, p)
	eventually(t, func() error {
		if status, _ := p.status(); status.State != cri.PodSandboxState_SANDBOX_NOTREADY {
			return fmt.Errorf("the pod is %s", status.State)
		}
		return nil
	})
	if status := c.status(); status.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the container, which is another process, is %s", status.State)
	}
	p.end()
}

// runAgain starts containerd and waits until its CRI serves; that of 1.6 refuses
// for a while when containerd says that it is ready.
func runAgain(t *testing.T, p *pod) {
	t.Helper()
	if err := p.d.Run(p.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := p.runtime().ListPodSandbox(p.ctx, &cri.ListPodSandboxRequest{})
		return err
	})
}
