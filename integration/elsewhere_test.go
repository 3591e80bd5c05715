package integration

// An OCI runtime whose processes are not the shim's: this program stands between
// them, as the monitor of a virtual machine would, and the pids that the runtime
// tells are none of this host's.

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// envGuest makes this program such a monitor. Its value is the pid file that the
// runtime, whose command line follows, is going to write.
const envGuest = "CLEAT_TEST_GUEST"

// guestPIDs is what is added to pids: more than Linux ever gives away.
const guestPIDs = 10_000_000

// guestIfAsked is the monitor's life: it runs the OCI runtime, waits for the
// process that this has made, and leaves its exit status beside the pid file.
func guestIfAsked() {
	pidFile := os.Getenv(envGuest)
	if pidFile == "" {
		return
	}
	status, err := guest(pidFile, os.Args[1], os.Args[2:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(status)
}

func guest(pidFile, program string, args ...string) (status int, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		os.WriteFile(pidFile+".failed", nil, 0o600)
		return 1, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 1, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 1, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		return 1, err
	}
	for fd := range 3 { // they are the container's
		unix.Dup2(null, fd)
	}
	told := strconv.Itoa(pid + guestPIDs)
	if err := os.WriteFile(pidFile, []byte(told), 0o600); err != nil {
		return 1, err
	}
	if err := os.WriteFile(pidFile+".made", []byte(told), 0o600); err != nil {
		return 1, err
	}
	var end unix.WaitStatus
	if _, err := unix.Wait4(pid, &end, 0, nil); err != nil {
		return 1, err
	}
	code := end.ExitStatus()
	if end.Signaled() {
		code = 128 + int(end.Signal())
	}
	exit := os.Getenv("CLEAT_TEST_GUEST_EXITS") + "/" + told
	if err := os.WriteFile(exit+".new", fmt.Appendf(nil, `{"id": "x", "exitStatus": %d}`, code), 0o600); err != nil {
		return 1, err
	}
	return 0, os.Rename(exit+".new", exit)
}

// elsewhereRuntime is the runtime. Without waits it does not know the command
// wait.
func elsewhereRuntime(t *testing.T, waits bool) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	refuse := ""
	if !waits {
		refuse = "wait) echo 'no such command: wait' >&2; exit 1;;"
	}
	return scripted(t, fmt.Sprintf(`
exits=$0.exits id=$last pid= previous=
$busybox mkdir -p $exits
for a; do [ "$previous" = --pid ] && pid=$a; previous=$a; done
case $command in
%[4]s
create|exec)
	$busybox rm -f $pidfile $pidfile.made $pidfile.failed
	%[2]s=$pidfile CLEAT_TEST_GUEST_EXITS=$exits %[1]s %[3]s "$@" <&0 &
	until [ -e $pidfile.made ] || [ -e $pidfile.failed ]; do $busybox usleep 2000; done
	[ -e $pidfile.made ] || exit 1
	[ $command = exec ] || $busybox cp $pidfile.made $exits/init-$id
	$busybox rm -f $pidfile.made
	exit 0;;
wait)
	[ -n "$pid" ] || pid=$($busybox cat $exits/init-$id)
	until [ -e $exits/$pid ]; do $busybox usleep 2000; done
	exec $busybox cat $exits/$pid;;
kill)
	if [ -n "$pid" ]; then
		for signal; do :; done
		exec $busybox kill -$signal $((pid - %[5]d))
	fi;;
ps)
	list=
	for p in $(runc "$@" | $busybox tr -c 0-9 ' '); do list=$list${list:+,}$((p + %[5]d)); done
	echo "[$list]"; exit 0;;
esac`, self, envGuest, programs.Runc, refuse, guestPIDs))
}

// The runtime is asked for everything: pids, statistics, signals, ends.
func TestOCIRuntimeWhoseProcessesAreElsewhere(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	env := l.configured(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q\nprocesses = 'elsewhere'", elsewhereRuntime(t, true)))
	m := l.prepare("elsewhere")
	m.options.BinaryName = ""
	m.boot(env)
	m.allOfIt()
	if m.request.Stdin != "" {
		t.Error("the test has changed")
	}

	// Killed when it was created only; and with its shim.
	m = l.prepare("never-started")
	m.options.BinaryName = ""
	m.boot(env)
	if pid := m.create(); pid < guestPIDs {
		t.Errorf("the pid is %d", pid)
	}
	m.delete("")
	m.shutdown()
	m.clean()
	m = l.prepare("orphaned")
	m.options.BinaryName = ""
	m.boot(env)
	m.run()
	if err := unix.Kill(m.shimPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.clean()
}

// One that cannot be waited for is asked whether its container has ended. Then
// the status is lost, and nothing else.
func TestOCIRuntimeElsewhereThatCannotWait(t *testing.T) {
	t.Parallel()
	ourConfiguration(t)
	l := newLone(t)
	m := l.prepare("no-wait")
	m.options.BinaryName = ""
	m.boot(l.configured(fmt.Sprintf("runtime = 'x'\n[runtimes.x]\npath = %q\nprocesses = 'elsewhere'", elsewhereRuntime(t, false))))
	m.run()
	if m.state("").Status.String() != "RUNNING" {
		t.Errorf("it is %s", m.state("").Status)
	}
	m.kill("", unix.SIGKILL)
	if status := m.wait(""); status != 255 {
		t.Errorf("it ended with %d, want 255", status)
	}
	m.finish()
}
