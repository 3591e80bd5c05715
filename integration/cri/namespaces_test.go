package cri

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cleatrun/cleat/integration/daemon"
	"github.com/cleatrun/cleat/integration/kernel"
)

// crowd starts processes that leave their parent, their session and their
// group, and says when they are there.
const crowd = "trap 'exit 9' TERM; for i in 1 2 3; do setsid sleep 7000$i & done; (sleep 70004 & ) ; echo ready; wait"

// namespace of a process.
func namespace(t *testing.T, pid int, kind string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// A pod in all of the host's namespaces, where the kernel ends nobody because
// his init has: whatever its containers have started is gone when it is stopped.
func TestHostNamespaces(t *testing.T) {
	t.Parallel()
	host := func(c *cri.PodSandboxConfig) {
		*namespaces(c) = cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_NODE, Ipc: cri.NamespaceMode_NODE}
	}
	p := runPod(t, sharedDaemon(t), typed, "host", host)
	first, second := p.run("first", []string{"sh", "-c", crowd}), p.run("second", []string{"sh", "-c", crowd})
	first.wrote("ready")
	second.wrote("ready")
	for _, kind := range []string{"net", "pid", "ipc"} {
		if got, want := namespace(t, first.pid(), kind), namespace(t, os.Getpid(), kind); got != want {
			t.Errorf("the %s namespace is %s, want the host's, %s", kind, got, want)
		}
	}
	if out := second.output("sh", "-c", "[ -d /proc/$PPID ] && cat /proc/1/comm"); out == "" {
		t.Error("an exec does not see the host's processes")
	}

	// One container is stopped: all of it goes, and nothing of the other.
	of := func(c *container) []int { return kernel.CgroupPIDs(p.config.Linux.CgroupParent + "/" + c.id) }
	one, other := of(first), of(second)
	if len(one) < 5 || len(other) < 5 {
		t.Fatalf("the containers have the processes %v and %v", one, other)
	}
	first.stop(20)
	if status := first.status(); status.ExitCode != 9 {
		t.Errorf("the container ended with %d, want 9", status.ExitCode)
	}
	eventually(t, func() error { return gone(one...) })
	if got := of(second); !slices.Equal(got, other) {
		t.Errorf("the other container's processes were %v and are %v", other, got)
	}
	all := p.pids()
	p.stop()
	if err := gone(all...); err != nil {
		t.Errorf("the pod is stopped: %v", err)
	}
	p.end()
}

// shareProcessNamespace: containers see each other's processes, the pod's own
// process waits for orphans, and a container is stopped with all it has started
// although its first process is nobody's init.
func TestSharedProcessNamespace(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "share-pid", func(c *cri.PodSandboxConfig) { namespaces(c).Pid = cri.NamespaceMode_POD })
	first, second := p.run("first", []string{"sh", "-c", crowd}), p.run("second", forever)
	first.wrote("ready")
	shows := func(c *container, process string) error {
		if out := c.output("ps", "-o", "pid,args"); !strings.Contains(out, process) {
			return fmt.Errorf("%s does not see %q but\n%s", c.name(), process, out)
		}
		return nil
	}
	for _, process := range []string{"sleep 70001", "sleep 70004", "1 sh -c trap 'exit 0' TERM INT"} {
		if err := shows(second, process); err != nil {
			t.Error(err)
		}
	}
	before := kernel.CgroupPIDs(p.config.Linux.CgroupParent + "/" + first.id)
	first.stop(20)
	if status := first.status(); status.ExitCode != 9 {
		t.Errorf("the container ended with %d, want 9", status.ExitCode)
	}
	eventually(t, func() error { return gone(before...) })
	if err := shows(second, "sleep 70001"); err == nil {
		t.Error("a stopped container's process is there")
	}
	p.end()
}

// kubectl debug --target: a container in another one's PID namespace, that ends
// with it.
func TestContainerInTheProcessNamespaceOfAnother(t *testing.T) {
	t.Parallel()
	p := runPod(t, sharedDaemon(t), typed, "target-pid")
	target := p.run("target", forever)
	guest := p.run("guest", []string{"sh", "-c", crowd}, func(c *cri.ContainerConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{
			Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_TARGET, TargetId: target.id,
		}
	})
	guest.wrote("ready")
	if got, want := namespace(t, guest.pid(), "pid"), namespace(t, target.pid(), "pid"); got != want {
		t.Errorf("the PID namespace is %s, want that of the target, %s", got, want)
	}
	pids := kernel.CgroupPIDs(p.config.Linux.CgroupParent + "/" + guest.id)
	target.stop(20)
	if status := guest.exited(); status.ExitCode != 137 {
		t.Errorf("the guest ended with %d, want 137", status.ExitCode)
	}
	eventually(t, func() error { return gone(pids...) })
	p.end()
}

// users is a case of TestUserNamespace.
type users struct {
	name    string
	first   uint32            // user of the host that root of the pod is
	own     bool              // the pod has a network of its own
	volume  bool              // one with mapped owners
	reopens bool              // the container opens its streams by name
	refused map[string]string // by series of containerd: what it says, as a pattern
}

// notMapped is what a container of 1.6 writes, which drops what the CRI asks for.
const notMapped = "map 0 0 4294967295"

// hostUsers: false. Root of the pod is nobody on the host, files are mapped, and
// what the container writes arrives although the shim's pipes are the host's.
// What a release of containerd does not do it has to refuse as it is known to.
//
// No two pods have the same users: 1.7 fails to make the same mapped image for two
// at once.
func TestUserNamespace(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	const noMap = "its container writes " + notMapped
	const noNetwork = "failed to pin user namespace: failed to open netns\\(\\): open : no such file or directory"
	for _, test := range []users{
		{name: "own", first: 1 << 20, own: true, refused: map[string]string{"1.6": noMap}},
		{name: "host", first: 2 << 20, refused: map[string]string{
			"1.6": noMap,
			"1.7": `error mounting "sysfs" to rootfs at "/sys"`, // it asks runc for a mount that the kernel allows only with the network's owner
			"2.0": noNetwork,
			"2.2": noNetwork,
		}},
		{name: "volume", first: 3 << 20, own: true, volume: true, refused: map[string]string{"1.6": noMap, "1.7": "idmap mounts not yet supported"}},
		// It tells no shim whose the streams are to be (IoUid among runc's options).
		{name: "streams", first: 4 << 20, own: true, reopens: true, refused: map[string]string{"1.6": noMap, "1.7": "can't create /dev/stdout: Permission denied"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, d)
		})
	}
}

func (u users) run(t *testing.T, d *daemon.Daemon) {
	mapping := []*cri.IDMapping{{ContainerId: 0, HostId: u.first, Length: 1 << 16}}
	refused := u.refused[programs.Release.Series]
	var mounts []*cri.Mount
	inside, folder := "/bin", ""
	if u.volume {
		var err error
		if folder, err = os.MkdirTemp(d.Dir, "volume-"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := kernel.MapsOwners(folder); err != nil {
			t.Skipf("the filesystem of %s maps no owners: %v", folder, err)
		}
		inside = "/volume"
		mounts = append(mounts, &cri.Mount{HostPath: folder, ContainerPath: inside, UidMappings: mapping, GidMappings: mapping})
	}
	p := newPod(t, d, "users-"+u.name, func(c *cri.PodSandboxConfig) {
		namespaces(c).UsernsOptions = &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: mapping, Gids: mapping}
		if u.own {
			own(c)
		}
	})
	if err := p.tryRun(typed); err != nil {
		cannot(t, refused, err)
	}
	c, err := p.tryCreate("main", []string{"sh", "-c", `
		trap 'exit 9' TERM
		echo map $(cat /proc/self/uid_map)
		echo owners $(stat -c %u:%g / $0)
		[ -z "$1" ] || { echo opened >/dev/stdout; echo error >/dev/stderr; }
		echo ready; sleep 100000 & wait`, inside, map[bool]string{true: "reopen"}[u.reopens]},
		func(c *cri.ContainerConfig) { c.Mounts = mounts })
	if err != nil {
		cannot(t, refused, err)
	}
	c.start()
	c.wrote("ready")
	var entries []entry
	eventually(t, func() (err error) { // what is written to one stream may come after the other's
		entries, err = readLog(c.log())
		if err == nil && u.reopens && len(texts(entries, "stderr")) == 0 {
			err = errors.New("the container has not opened its streams")
		}
		return err
	})
	if slices.Contains(texts(entries, "stdout"), notMapped) {
		cannot(t, refused, errors.New("its container writes "+notMapped))
	}
	if said := strings.Join(texts(entries, "stderr"), "\n"); strings.Contains(said, "can't") {
		cannot(t, refused, errors.New(said))
	}
	if refused != "" {
		t.Fatalf("this containerd does what it is known to refuse with %q", refused)
	}
	wrote := []string{fmt.Sprintf("map 0 %d 65536", u.first), "owners 0:0 0:0"}
	if u.reopens {
		wrote = append(wrote, "opened", "error")
		c.output("sh", "-c", "echo x >/dev/stderr")
	}
	for _, text := range wrote {
		c.wrote(text)
	}
	var stat unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", c.pid()), &stat); err != nil || stat.Uid != u.first {
		t.Errorf("on the host the container's user is %d, %v", stat.Uid, err)
	}
	if out := c.output("sh", "-c", "id -u"); out != "0\n" {
		t.Errorf("an exec is user %q", out)
	}
	if u.volume {
		c.output("sh", "-c", "echo there >/volume/file")
		if err := unix.Stat(folder+"/file", &stat); err != nil || stat.Uid != 0 {
			t.Errorf("on the host a file of the container's belongs to %d, %v", stat.Uid, err)
		}
	}
	c.stop(20)
	if status := c.status(); status.ExitCode != 9 {
		t.Errorf("the container ended with %d, want 9", status.ExitCode)
	}
	p.end()
}
