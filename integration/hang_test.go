package integration

// Processes that hang in the kernel, where no signal reaches them: those of a
// file server that has gone silent, as it happens with network filesystems.

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// silentServer mounts a filesystem whose server answers for nothing but the root
// folder. Who looks for a file in it hangs until release is called.
func silentServer(t *testing.T) (dir string, release func()) {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("the kernel has no FUSE: %v", err)
	}
	dir = t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device)
	if err := unix.Mount("silent", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(device)
		t.Fatal(err)
	}
	abort, ended := make(chan struct{}), make(chan struct{})
	release = func() {
		select {
		case <-abort:
		default:
			close(abort)
			unix.Unmount(dir, unix.MNT_DETACH|unix.MNT_FORCE) // FORCE ends what hangs
		}
	}
	t.Cleanup(func() { release(); <-ended })
	go func() { // ends with the mount
		defer close(ended)
		defer unix.Close(device)
		serveNothing(device, abort)
	}()
	return dir, release
}

// serveNothing answers a FUSE client as silentServer says (include/uapi/linux/fuse.h).
func serveNothing(device int, abort chan struct{}) {
	const (
		lookup, getattr, initialize = 1, 3, 26
		rootFolder                  = 1
	)
	request := make([]byte, 256<<10)
	for {
		poll := []unix.PollFd{{Fd: int32(device), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 50); err != nil && err != unix.EINTR {
			return
		}
		select {
		case <-abort:
			return
		default:
		}
		if poll[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(device, request)
		if err != nil || n < 40 {
			if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
				continue
			}
			return
		}
		opcode, id := binary.NativeEndian.Uint32(request[4:]), request[8:16]
		var body []byte
		failure := int32(0)
		switch opcode {
		case lookup:
			continue
		case initialize:
			body = make([]byte, 64)
			binary.NativeEndian.PutUint32(body, 7)      // version 7.31
			binary.NativeEndian.PutUint32(body[4:], 31) //
			binary.NativeEndian.PutUint32(body[20:], 4096)
		case getattr:
			body = make([]byte, 16+88)
			binary.NativeEndian.PutUint64(body[16:], rootFolder)
			binary.NativeEndian.PutUint32(body[16+60:], unix.S_IFDIR|0o755)
			binary.NativeEndian.PutUint32(body[16+64:], 2)
		default:
			failure = -int32(unix.ENOSYS)
		}
		answer := make([]byte, 16, 16+len(body))
		binary.NativeEndian.PutUint32(answer, uint32(16+len(body)))
		binary.NativeEndian.PutUint32(answer[4:], uint32(failure))
		copy(answer[8:], id)
		unix.Write(device, append(answer, body...))
	}
}

// hangs waits until a process does.
func hangs(t *testing.T, pid int) {
	t.Helper()
	eventually(t, func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", pid))
		if err == nil && !strings.Contains(string(text), "fuse") && !strings.Contains(string(text), "request_wait") {
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			err = fmt.Errorf("process %d waits for %q: %s", pid, text, state)
		}
		return err
	})
}

// Neither the shim nor other processes wait for one that cannot be killed. Its
// end is told when it comes; that of its container at last without it. Stock
// fails: the container's exit is not told.
func TestProcessThatHangsInTheKernelHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	l := newLone(t)
	dir, release := silentServer(t)
	mounted := func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "bind", Source: dir, Options: []string{"rbind"}})
	}
	lost := l.member("hang-host", mounted, hostPIDs).run()
	hangs(t, lost.exec("stuck", "stat", "/run/one"))
	began := time.Now()
	lost.kill("", unix.SIGKILL)
	ended := make(chan error, 1)
	go func() {
		_, err := lost.tryWait(l.ctx, "")
		ended <- err
	}()

	m := l.member("hang", mounted).run()
	hangs(t, m.exec("stuck", "stat", "/run/another"))
	m.kill("stuck", unix.SIGKILL)
	m.is("stuck", tasktypes.Status_RUNNING)
	m.is("", tasktypes.Status_RUNNING)
	if _, err := m.tryDelete(l.ctx, "stuck"); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("Delete of a process that hangs gives %v", err)
	}
	m.exec("other", "sh", "-c", "exit 3")
	if status := m.wait("other"); status != 3 {
		t.Errorf("another process ended with %d, want 3", status)
	}
	m.delete("other")
	if _, err := m.shim.Stats(l.ctx, &task.StatsRequest{ID: m.id}); err != nil {
		t.Errorf("statistics: %v", err)
	}

	const hold = 10 * time.Second // what the exit of init waits for its execs
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*hold {
		t.Errorf("the exit of a container with a process that hangs is told after %s", took)
	}
	lost.is("stuck", tasktypes.Status_RUNNING)

	release()
	for _, m := range []*member{m, lost} {
		if status := m.wait("stuck"); status != 137 {
			t.Errorf("%s: the process that had hung ended with %d, want 137", m.id, status)
		}
		m.delete("stuck")
	}
	m.end()
	lost.finish()
	if err := inOrder(lost.told("/tasks/delete", ""), "/tasks/start", "/tasks/exit", "/tasks/exit stuck", "/tasks/delete"); err != nil {
		t.Error(err)
	}
}
