package bootstrap

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a daemon that `start` has just started. It is our child and not
// waited for, so its pid is its own.
type process struct{ pid int }

// kill ends a daemon whose start failed, and waits for its end.
func (p process) kill() {
	unix.Kill(p.pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(p.pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// spawn starts the daemon in folder dir with listener as its descriptor 3, in
// a process group of its own, and with no other descriptor of ours: containerd
// waits until nobody holds the stdout of `start`.
//
// It goes to the system call directly, as os/exec would first fork a child to
// try out the kernel's pidfds.
func (c Call) spawn(dir string, listener int, args, env []string) (process, error) {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer unix.Close(null)
	// Also what we were given ourselves beyond the three; older kernels than
	// 5.11 leave that open.
	unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	attributes := &syscall.ProcAttr{
		Dir:   dir,
		Env:   env,
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(listener)},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	self, err := os.Executable()
	if err != nil {
		self = selfLink
	}
	pid, err := syscall.ForkExec(self, args, attributes)
	if errors.Is(err, fs.ErrNotExist) {
		// The binary has been replaced since we were started from it.
		pid, err = syscall.ForkExec(selfLink, args, attributes)
	}
	if err != nil {
		return process{}, fmt.Errorf("start the shim's daemon from %s in %s: %w", self, dir, err)
	}
	return process{pid: pid}, nil
}

// selfLink leads to the running binary even when its file is gone; a process
// started through it is called "exe", so it is not the first choice.
const selfLink = "/proc/self/exe"

// daemonArgs is the command line of the daemon. It is given argv[0] as we
// have it, for the name picks the OCI runtime.
func (c Call) daemonArgs(debug bool) []string {
	args := []string{c.InvokedAs, "-namespace", c.Namespace, "-id", c.ID, "-address", c.Address}
	if debug {
		args = append(args, "-debug")
	}
	return args
}

// daemonEnv is the environment of the daemon: ours, with what is the daemon's
// own. One processor is enough for it, and keeps its threads and memory few. Where
// the kernel gives huge pages to everybody, Go is told to do without: a heap of
// half a MiB would have 2 MiB.
func daemonEnv(environ []string, ttrpcAddress, id string, hugePages bool) []string {
	own := map[string]string{
		"GOMAXPROCS":        "1",
		"OTEL_SERVICE_NAME": "containerd-shim-" + id,
	}
	if ttrpcAddress != "" {
		own[ttrpcAddressVariable] = ttrpcAddress
	}
	if hugePages {
		own[debugVariable] = withSetting(environ, "disablethp=1")
	}
	env := make([]string, 0, len(environ)+len(own))
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if _, replaced := own[name]; !replaced {
			env = append(env, variable)
		}
	}
	for _, name := range []string{"GOMAXPROCS", "OTEL_SERVICE_NAME", ttrpcAddressVariable, debugVariable} {
		if value, ok := own[name]; ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// debugVariable holds settings of Go's runtime (package runtime, Environment
// Variables).
const debugVariable = "GODEBUG"

// withSetting is the value of debugVariable with one more setting.
func withSetting(environ []string, setting string) string {
	for _, variable := range environ {
		if value, ok := strings.CutPrefix(variable, debugVariable+"="); ok && value != "" {
			return value + "," + setting
		}
	}
	return setting
}

// hugePagesForAll tells whether memory is given as huge pages to who has not asked
// for it (Documentation/admin-guide/mm/transhuge.rst).
func hugePagesForAll() bool {
	text, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && strings.Contains(string(text), "[always]")
}

// maxOOMScore is OOM_SCORE_ADJ_MAX of linux/oom.h.
const maxOOMScore = 1000

// raiseOOMScore makes the kernel prefer the shim to containerd when it must
// free memory: by one more than what we were started with, which is
// containerd's own. The daemon inherits it.
func raiseOOMScore() error {
	const path = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read OOM score: %w", err)
	}
	if score >= maxOOMScore {
		return nil
	}
	err = os.WriteFile(path, []byte(strconv.Itoa(score+1)), 0)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // user namespaces may forbid it
		return fmt.Errorf("raise OOM score: %w", err)
	}
	return nil
}

// schedulingVariable asks for core scheduling when it is not empty; an
// administrator sets it in containerd's config.
const schedulingVariable = "SCHED_CORE"

// ownSchedulingCore gives this thread a core scheduling cookie of its own,
// which what it starts from now on inherits: no process outside shares a core's
// hardware threads with the shim and its containers
// (Documentation/admin-guide/hw-vuln/core-scheduling.rst).
func ownSchedulingCore() error {
	runtime.LockOSThread() // until we end, which is soon
	const thread = 0       // PIDTYPE_PID
	err := unix.Prctl(unix.PR_SCHED_CORE, unix.PR_SCHED_CORE_CREATE, 0, thread, 0)
	if err != nil {
		return fmt.Errorf("make a core scheduling group (%s is set): %w", schedulingVariable, err)
	}
	return nil
}
