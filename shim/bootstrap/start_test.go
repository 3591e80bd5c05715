package bootstrap

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestStartAnswersBootstrapParamsWithVersion3(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle("c1", nil)
	p := n.params("c1")
	if err := p.AddExtension(&runcoptions.Options{BinaryName: "runc"}); err != nil {
		t.Fatal(err)
	}
	if err := p.AddExtension(&bootapi.BootstrapResult{Address: "of an unknown type"}); err != nil {
		t.Fatal(err)
	}
	got := n.mustStart("c1", p)
	want := &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: "unix://" + n.socket("c1")}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n.leader(got.Address) == 0 {
		t.Error("nobody serves")
	}
	if address, _ := os.ReadFile(filepath.Join(bundle, "address")); string(address) != want.Address {
		t.Errorf("address file: %q", address)
	}
	if link, _ := os.Readlink(filepath.Join(bundle, "s")); link != n.sockets {
		t.Errorf("link to the socket folder: %q", link)
	}
	for path, mode := range map[string]os.FileMode{n.sockets: 0o700 | os.ModeDir, n.socket("c1"): 0o600 | os.ModeSocket} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, want %v (%v)", path, info.Mode(), mode, err)
		}
	}
	if files := n.files(n.sockets); len(files) != 1 {
		t.Errorf("socket folder holds %v", files)
	}
}

// containerd before 2.3 reads a plain address and does not trim it; it gives
// no socket folder, so this uses a user's.
func TestStartAnswersOldContainerdWithThePlainAddress(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("must be root to become another user")
	}
	runc, err := anypb.New(&runcoptions.Options{BinaryName: "runc"})
	if err != nil {
		t.Fatal(err)
	}
	toml, err := anypb.New(&runtimeoptions.Options{ConfigBody: []byte("stdio = 'copy'")})
	if err != nil {
		t.Fatal(err)
	}
	for name, stdin := range map[string]proto.Message{
		"nothing": &anypb.Any{}, "runc options": runc, "runtime options": toml,
		"options of an unknown type": &anypb.Any{TypeUrl: "example.com/unknown.Options", Value: []byte{0xff}},
	} {
		n := newNode(t)
		bundle := n.bundle("c1", nil)
		const uid = 54321
		for _, path := range []string{filepath.Dir(n.root), n.root, n.notes, bundle, filepath.Join(bundle, "config.json")} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Dir(filepath.Dir(n.shim)), 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Dir(n.shim), 0o711); err != nil {
			t.Fatal(err)
		}
		n.sockets = filepath.Join(filepath.Dir(n.root), "containerd", "s")
		n.env = []string{"XDG_RUNTIME_DIR=" + filepath.Dir(n.root)}
		cmd := n.command("c1", "start")
		output, status := n.runAs(cmd, uid, n.marshal(stdin))
		if status != 0 || output != "unix://"+n.socket("c1") {
			t.Errorf("%s: status %d, output %q", name, status, output)
		}
		if address, _ := os.ReadFile(filepath.Join(bundle, "address")); string(address) != output {
			t.Errorf("%s: address file %q", name, address)
		}
		if _, err := os.Lstat(filepath.Join(bundle, "s")); err == nil {
			t.Errorf("%s: a link to a socket folder that nobody gave", name)
		}
	}
}

func TestTheDaemonInheritsWhatTheContractSays(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle("c1", nil)
	name := filepath.Join(filepath.Dir(n.root), "containerd-shim-crun-v2")
	if err := os.Symlink(n.shim, name); err != nil {
		t.Fatal(err)
	}
	n.shim = name
	// containerd may leak a descriptor to us; it must not live on in the daemon.
	leaked, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	n.env = []string{"KEPT=yes", "OTEL_SERVICE_NAME=containerd"}
	r := n.mustStart("c1", n.params("c1"), "-debug")
	pid := n.leader(r.Address)
	f := n.facts(pid)
	if want := []string{name, "-namespace", namespace, "-id", "c1", "-address", grpcAddress, "-debug"}; !slices.Equal(f.Args, want) {
		t.Errorf("arguments %q", f.Args)
	}
	for _, want := range []string{"GOMAXPROCS=1", "OTEL_SERVICE_NAME=containerd-shim-c1", "TTRPC_ADDRESS=" + ttrpcSocket, "KEPT=yes"} {
		name, _, _ := strings.Cut(want, "=")
		var got []string
		for _, v := range f.Env {
			if strings.HasPrefix(v, name+"=") {
				got = append(got, v)
			}
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("environment has %q, want %s once", got, want)
		}
	}
	for fd, target := range f.Descriptors {
		switch {
		case fd <= "2" && target == "/dev/null", fd == "3" && strings.HasPrefix(target, "socket:"):
		case strings.HasPrefix(target, "/proc/"), strings.HasPrefix(target, "/sys/fs/cgroup/"):
			// Of the look itself, and of Go's runtime for its GOMAXPROCS.
		default:
			t.Errorf("descriptor %s is %s", fd, target)
		}
	}
	d := f.Daemon
	if d.Namespace != namespace || d.ID != "c1" || d.Address != grpcAddress || d.TTRPCAddress != ttrpcSocket ||
		d.Bundle != bundle || d.RuntimeName != "io.containerd.crun.v2" || !d.Debug ||
		d.SocketPath != n.socket("c1") {
		t.Errorf("daemon is told %+v", d)
	}
	if group, _ := syscall.Getpgid(pid); group != pid {
		t.Errorf("process group %d of daemon %d", group, pid)
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	score, _ := strconv.Atoi(strings.TrimSpace(string(own)))
	if want := strconv.Itoa(min(score+1, 1000)); f.OOMScore != want {
		t.Errorf("OOM score %s, want %s", f.OOMScore, want)
	}
}

func TestLogLevelDebugIsPassedOn(t *testing.T) {
	n := newNode(t)
	for level, want := range map[bootapi.LogLevel]bool{
		bootapi.LogLevel_LOG_LEVEL_TRACE: true, bootapi.LogLevel_LOG_LEVEL_DEBUG: true,
		bootapi.LogLevel_LOG_LEVEL_INFO: false, bootapi.LogLevel_LOG_LEVEL_ERROR: false,
	} {
		id := "level" + strconv.Itoa(int(level)+10)
		n.bundle(id, nil)
		p := n.params(id)
		p.LogLevel = level
		if got := n.facts(n.leader(n.mustStart(id, p).Address)).Daemon.Debug; got != want {
			t.Errorf("level %v: debug %v", level, got)
		}
	}
}

func TestWithoutAddressInTheParamsTheEnvironmentsIsKept(t *testing.T) {
	n := newNode(t)
	n.bundle("c1", nil)
	p := n.params("c1")
	p.ContainerdTtrpcAddress = ""
	if got := n.facts(n.leader(n.mustStart("c1", p).Address)).Daemon.TTRPCAddress; got != "/from/the/environment" {
		t.Errorf("TTRPC address %q", got)
	}
}

func TestContainersOfAGroupShareOneDaemon(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct {
		id, group   string
		annotations map[string]string
	}{
		{"pod1", "pod1", map[string]string{"io.kubernetes.cri.sandbox-id": "pod1"}},
		{"a", "pod1", map[string]string{"io.kubernetes.cri.sandbox-id": "pod1", "unrelated": "x"}},
		{"b", "g", map[string]string{"io.containerd.runc.v2.group": "g", "io.kubernetes.cri.sandbox-id": "pod1"}},
		{"c", "pod1", map[string]string{"io.kubernetes.cri-o.SandboxID": "pod1"}},
		{"d", "d", map[string]string{"io.containerd.runc.v2.group": ""}},
		{"e", "e", nil},
	} {
		bundle := n.bundle(c.id, c.annotations)
		r := n.mustStart(c.id, n.params(c.id))
		if want := "unix://" + n.socket(c.group); r.Address != want || r.Version != 3 {
			t.Errorf("%s: answer %v, want %s", c.id, r, want)
		}
		if address, _ := os.ReadFile(filepath.Join(bundle, "address")); string(address) != r.Address {
			t.Errorf("%s: address file %q", c.id, address)
		}
		n.leader(r.Address)
	}
	if pids := n.processes(); len(pids) != 4 {
		t.Errorf("%d daemons for 4 groups", len(pids))
	}
	for _, id := range []string{"a", "c"} {
		if _, err := os.Stat(filepath.Join(n.notes, "joined-"+id)); err != nil {
			t.Errorf("the leader was not told that %s joins: %v", id, err)
		}
	}
}

func TestASandboxWithoutASpecIsAGroupOfItsOwn(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle("sandbox", nil)
	if err := os.Remove(filepath.Join(bundle, "config.json")); err != nil {
		t.Fatal(err)
	}
	if r := n.mustStart("sandbox", n.params("sandbox")); r.Address != "unix://"+n.socket("sandbox") {
		t.Errorf("address %s", r.Address)
	}
}

// Two containers of a pod that start together must not get a daemon each, nor
// one a socket that the other has just removed.
func TestTwoStartsOfOneGroupAtOnceGiveOneDaemon(t *testing.T) {
	n := newNode(t)
	for round := range 50 {
		group := "g" + strconv.Itoa(round)
		if round%2 == 1 { // and with a socket that a killed shim left
			fd, err := listenForTest(n, group)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
		}
		var addresses [2]string
		var both sync.WaitGroup
		for i := range addresses {
			id := group + "." + strconv.Itoa(i)
			n.bundle(id, map[string]string{"io.containerd.runc.v2.group": group})
			both.Go(func() {
				output, status := n.start(id, n.marshal(n.params(id)))
				var r bootapi.BootstrapResult
				if err := proto.Unmarshal([]byte(output), &r); err != nil || status != 0 {
					t.Errorf("start %s: status %d, output %q", id, status, output)
				}
				addresses[i] = r.Address
			})
		}
		both.Wait()
		if t.Failed() {
			t.FailNow()
		}
		if addresses[0] != addresses[1] {
			t.Fatalf("round %d: addresses %q", round, addresses)
		}
		pids := n.processes()
		if len(pids) != 1 || n.leader(addresses[0]) != pids[0] {
			t.Fatalf("round %d: daemons %v, serving is %d", round, pids, n.leader(addresses[0]))
		}
		killWait(t, pids[0])
	}
	for _, name := range n.files(n.sockets) {
		if strings.HasSuffix(name, ".lock") {
			t.Errorf("a lock is left: %s", name)
		}
	}
}

func listenForTest(n *node, group string) (int, error) {
	if err := os.MkdirAll(n.sockets, 0o700); err != nil {
		return -1, err
	}
	return listen(n.socket(group))
}

// A socket file on which nobody listens, or what else lies there, is replaced.
func TestTheSocketOfAKilledShimIsReplaced(t *testing.T) {
	n := newNode(t)
	n.bundle("c1", nil)
	first := n.leader(n.mustStart("c1", n.params("c1")).Address)
	killWait(t, first)
	second := n.leader(n.mustStart("c1", n.params("c1")).Address)
	if first == second {
		t.Errorf("the killed daemon %d answers", first)
	}
	n.bundle("c2", nil)
	n.write(n.socket("c2"), "not a socket")
	n.leader(n.mustStart("c2", n.params("c2")).Address)
}

func TestStartRefusesBadInput(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle("c1", nil)
	good := n.marshal(n.params("c1"))
	other := n.params("c2")
	otherNamespace := n.params("c1")
	otherNamespace.Namespace = "elsewhere"
	badOptions := n.params("c1")
	badOptions.Extensions = []*bootapi.Extension{{Value: &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: []byte{0xff}}}}
	relative, long := n.params("c1"), n.params("c1")
	relative.SocketDir = proto.String("s")
	long.SocketDir = proto.String("/tmp/" + strings.Repeat("l", 60))
	defer os.Remove(long.GetSocketDir())
	for _, c := range []struct {
		name  string
		stdin []byte
		words []string
	}{
		{"no protobuf", []byte("{\"version\":3}"), []string{"stdin"}},
		{"cut off", good[:len(good)-1], []string{"bootstrap parameters", "stdin"}},
		{"without a type", n.marshal(&anypb.Any{Value: []byte("x")}), []string{"options"}},
		{"oversized", bytes.Repeat([]byte{0}, 10<<20+1), []string{"stdin", "10485760"}},
		{"for another container", n.marshal(other), []string{`"c2"`, `"c1"`}},
		{"for another namespace", n.marshal(otherNamespace), []string{`"elsewhere"`, `"ns"`}},
		{"broken options", n.marshal(badOptions), []string{"containerd.runc.v1.Options"}},
		{"relative socket folder", n.marshal(relative), []string{"socket folder", "absolute"}},
		{"long socket folder", n.marshal(long), []string{"socket path", "106"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n.t = t
			n.mustFail("c1", c.stdin, c.words...)
		})
	}
	n.t = t

	config := filepath.Join(bundle, "config.json")
	for _, c := range []struct {
		name string
		make func() error
		word string
	}{
		{"malformed", func() error { return os.WriteFile(config, []byte(`{"annotations":`), 0o600) }, "parse spec"},
		{"annotations of another type", func() error { return os.WriteFile(config, []byte(`{"annotations":[]}`), 0o600) }, "parse spec"},
		{"huge", func() error { return os.Truncate(config, 1<<30) }, "larger than"},
		{"FIFO", func() error { os.Remove(config); return syscall.Mkfifo(config, 0o600) }, "not a regular file"},
		{"folder", func() error { os.Remove(config); return os.Mkdir(config, 0o700) }, "not a regular file"},
	} {
		t.Run("config.json "+c.name, func(t *testing.T) {
			n.t = t
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
			n.mustFail("c1", good, "config.json", c.word)
		})
	}
	n.t = t

	// After all that, the next container works.
	n.bundle("c2", nil)
	n.leader(n.mustStart("c2", n.params("c2")).Address)
}

func TestStartNamesTheFolderItCannotUse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("must be root to take rights away from a process")
	}
	n := newNode(t)
	n.bundle("c1", nil)
	file := filepath.Join(n.notes, "file")
	n.write(file, "")
	p := n.params("c1")
	p.SocketDir = proto.String(filepath.Join(file, "s"))
	n.mustFail("c1", n.marshal(p), "socket folder", "not a directory")

	// Even root cannot write into /proc.
	p.SocketDir = proto.String("/proc/sys")
	n.mustFail("c1", n.marshal(p), "/proc/sys/")

	// A bundle that cannot be written to: read-only for everybody.
	bundle := n.bundle("c2", nil)
	if err := unix.Mount(bundle, bundle, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(bundle, unix.MNT_DETACH)
	if err := unix.Mount("", bundle, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	n.mustFail("c2", n.marshal(n.params("c2")), "bundle", "read-only")
}

func TestAStartWhoseAnswerNobodyReadsLeavesNothing(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle("c1", nil)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	cmd := n.command("c1", "start")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(n.marshal(n.params("c1"))), write, &stderr
	status := runToEnd(n, cmd)
	write.Close()
	if status != 1 {
		t.Errorf("status %d", status)
	}
	n.oneSentence(stderr.String(), "write answer", "broken pipe")
	if pids := n.processes(); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
	if files := n.files(n.sockets); len(files) != 0 {
		t.Errorf("%v are left in the socket folder", files)
	}
	if files := n.files(bundle); !slices.Equal(files, []string{"config.json"}) {
		t.Errorf("bundle holds %v", files)
	}
}
