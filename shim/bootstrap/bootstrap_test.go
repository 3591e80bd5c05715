package bootstrap

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { built.Main(m) }

const (
	namespace   = "ns"
	grpcAddress = "/run/containerd/containerd.sock"
	ttrpcSocket = "/run/containerd/containerd.sock.ttrpc"
)

// node is a place where containerd could run: bundles, a socket folder, and
// notes of the daemons that were started. Its end ends them.
type node struct {
	t       testing.TB
	shim    string
	root    string // of the bundles
	sockets string
	notes   string
	env     []string
}

func newNode(t testing.TB) *node {
	// Not t.TempDir: its paths are longer than that of a socket may be.
	dir, err := os.MkdirTemp("/tmp", "n")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, shim: built.Standin(t), root: filepath.Join(dir, "b"), sockets: filepath.Join(dir, "s"), notes: filepath.Join(dir, "n")}
	for _, d := range []string{n.root, n.notes} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, pid := range n.processes() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		os.RemoveAll(dir)
	})
	return n
}

// processes are the processes that were given this node's environment.
func (n *node) processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && strings.Contains(string(environ), "STANDIN_NOTES="+n.notes) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// bundle makes a bundle as containerd does, with the given annotations.
func (n *node) bundle(id string, annotations map[string]string) string {
	n.t.Helper()
	bundle := filepath.Join(n.root, id)
	if err := os.Mkdir(bundle, 0o700); err != nil {
		n.t.Fatal(err)
	}
	spec, err := json.Marshal(map[string]any{"ociVersion": "1.2.0", "process": map[string]any{"args": []string{"sh"}}, "annotations": annotations})
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(filepath.Join(bundle, "config.json"), string(spec))
	return bundle
}

func (n *node) write(path, text string) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// params are what containerd 2.4 sends for a container.
func (n *node) params(id string) *bootapi.BootstrapParams {
	return &bootapi.BootstrapParams{
		InstanceID: id, Namespace: namespace, ContainerdVersion: "2.4.2",
		ContainerdGrpcAddress: grpcAddress, ContainerdTtrpcAddress: ttrpcSocket,
		ContainerdBinary: "/usr/bin/containerd", SocketDir: &n.sockets,
	}
}

func (n *node) marshal(m proto.Message) []byte {
	n.t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		n.t.Fatal(err)
	}
	return data
}

// command is `start` or another action as containerd runs it.
func (n *node) command(id string, args ...string) *exec.Cmd {
	cmd := exec.Command(n.shim, append([]string{"-namespace", namespace, "-address", grpcAddress, "-publish-binary", "/usr/bin/containerd", "-id", id}, args...)...)
	cmd.Dir = filepath.Join(n.root, id)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "MAX_SHIM_VERSION=2", "TTRPC_ADDRESS=/from/the/environment",
		"GRPC_ADDRESS="+grpcAddress, "NAMESPACE="+namespace, "STANDIN_NOTES="+n.notes)
	cmd.Env = append(cmd.Env, n.env...)
	return cmd
}

// start runs `start` with both output streams in one, as containerd does.
func (n *node) start(id string, stdin []byte, args ...string) (output string, status int) {
	n.t.Helper()
	return n.run(n.command(id, append(args, "start")...), stdin)
}

func (n *node) run(cmd *exec.Cmd, stdin []byte) (output string, status int) {
	n.t.Helper()
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &out
	status = built.Run(n.t, cmd, 30*time.Second)
	return out.String(), status
}

// mustStart starts a shim in the new dialect and returns containerd's reading
// of the answer.
func (n *node) mustStart(id string, p *bootapi.BootstrapParams, args ...string) *bootapi.BootstrapResult {
	n.t.Helper()
	output, status := n.start(id, n.marshal(p), args...)
	if status != 0 {
		n.t.Fatalf("start %s: status %d: %s", id, status, output)
	}
	var result bootapi.BootstrapResult
	if err := proto.Unmarshal([]byte(output), &result); err != nil {
		n.t.Fatalf("start %s answered %q: %v", id, output, err)
	}
	return &result
}

// mustFail runs `start`, which must fail with one sentence that holds all of
// words, and leave nothing.
func (n *node) mustFail(id string, stdin []byte, words ...string) {
	n.t.Helper()
	before := n.files(n.sockets)
	output, status := n.start(id, stdin)
	if status != 1 {
		n.t.Errorf("start: status %d, output %q", status, output)
	}
	n.oneSentence(output, words...)
	if pids := n.processes(); len(pids) != 0 {
		n.t.Errorf("a failed start leaves processes %v", pids)
	}
	if after := n.files(n.sockets); strings.Join(after, " ") != strings.Join(before, " ") {
		n.t.Errorf("a failed start leaves %v in the socket folder, which had %v", after, before)
	}
	for _, name := range []string{"address", "s", ".address"} {
		if _, err := os.Lstat(filepath.Join(n.root, id, name)); err == nil {
			n.t.Errorf("a failed start leaves %s in the bundle", name)
		}
	}
}

func (n *node) oneSentence(output string, words ...string) {
	n.t.Helper()
	if strings.Count(output, "\n") != 1 || !strings.HasSuffix(output, "\n") || len(output) > 600 {
		n.t.Errorf("not one sentence: %q", output)
	}
	for _, word := range words {
		if !strings.Contains(output, word) {
			n.t.Errorf("%q does not say %q", output, word)
		}
	}
}

func (n *node) files(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// socket is where the shim of a group must listen: the scheme of containerd's
// own shim, written down once more.
func (n *node) socket(group string) string {
	return filepath.Join(n.sockets, fmt.Sprintf("%x", sha256.Sum256([]byte(grpcAddress+"/"+namespace+"/"+group))))
}

// client connects to a shim as containerd does.
func (n *node) client(address string) *ttrpc.Client {
	n.t.Helper()
	conn, err := net.DialTimeout("unix", strings.TrimPrefix(address, "unix://"), 10*time.Second)
	if err != nil {
		n.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	n.t.Cleanup(func() { client.Close() })
	return client
}

// leader returns the pid of the daemon that listens at address.
func (n *node) leader(address string) int {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r, err := task.NewTTRPCTaskClient(n.client(address)).Connect(ctx, &task.ConnectRequest{ID: "x"})
	if err != nil {
		n.t.Fatal(err)
	}
	return int(r.ShimPid)
}

type facts struct {
	Pid         int
	Args, Env   []string
	Descriptors map[string]string
	OOMScore    string
	Daemon      struct {
		Daemon
		Socket struct{} // hides the file, which has no JSON
	}
}

// facts are what the daemon with this pid noted of its start.
func (n *node) facts(pid int) (f facts) {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.notes, strconv.Itoa(pid)+".json"))
	if err != nil {
		n.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		n.t.Fatal(err)
	}
	return f
}

// killWait kills a process that is not our child and waits for its end.
func killWait(t testing.TB, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10000); n != 1 {
		t.Fatalf("process %d does not end: %v", pid, err)
	}
}

// runAs runs a command as another user, with both streams in one.
func (n *node) runAs(cmd *exec.Cmd, uid uint32, stdin []byte) (output string, status int) {
	n.t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return n.run(cmd, stdin)
}

func runToEnd(n *node, cmd *exec.Cmd) (status int) {
	n.t.Helper()
	return built.Run(n.t, cmd, 30*time.Second)
}
