// Package place gives one run of containerd, or of a lone shim, a place of its
// own on this machine: a short temporary folder and a namespace that nobody
// else uses. It knows what belongs to that place (processes, mounts, cgroups,
// sockets, FIFOs, bundles, state of the OCI runtime), can list it, and removes
// it all, even when the program that made the place dies.
//
// Nothing outside a place is ever touched.
package place

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// EnvMark is set to the place's folder in the environment of every process
// that is started in the place, so that it can be recognised later.
const EnvMark = "CLEAT_PLACE"

// runtimeState is where runc keeps its state when nobody says otherwise. The
// namespace is the next path element, so it does not collide with the host's.
const runtimeState = "/run/containerd/runc"

// PodsNamespace is where containerd has the containers of a kubelet. It cannot
// be chosen, so all places share it.
const PodsNamespace = "k8s.io"

// Place is a folder and a namespace. Both fields are the same as long as the
// place lives. All methods may be called concurrently.
type Place struct {
	Dir       string `json:"dir"`       // absolute and short: Unix socket paths start with it
	Namespace string `json:"namespace"` // of containerd; also the name of the cgroup that holds the place's containers

	keeper *keeper
	once   sync.Once
	err    error
}

// New makes a place. The caller removes it with Remove; if this process ends
// without that, however it ends, the place's keeper removes it.
func New() (*Place, error) {
	random := make([]byte, 4)
	rand.Read(random)
	name := "cleat-" + hex.EncodeToString(random)
	// Not os.TempDir: its length is not ours to choose.
	p := &Place{Dir: filepath.Join("/tmp", name), Namespace: name}
	if err := os.Mkdir(p.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("make a place: %w", err)
	}
	var err error
	if p.keeper, err = keep(p); err != nil {
		os.Remove(p.Dir)
		return nil, err
	}
	for _, sub := range []string{"tmp", "fifo", "s"} {
		if err := os.Mkdir(p.Path(sub), 0o711); err != nil {
			p.Remove()
			return nil, fmt.Errorf("make a place: %w", err)
		}
	}
	return p, nil
}

// StateInMemory mounts a tmpfs wherever a host has its state in /run: containerd's,
// with the bundles, the OCI runtime's, sockets and FIFOs. It is called before
// anything runs in the place. A host without a right to mount has them on its disk.
func (p *Place) StateInMemory() error {
	for _, dir := range []string{p.Path("state"), p.Path("bundles"), p.Sockets(), p.Fifos(), p.RuntimeState()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("state in memory: %w", err)
		}
		err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=711")
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("state in memory: mount a tmpfs on %s: %w", dir, err)
		}
	}
	return nil
}

// Path names a file of the place.
func (p *Place) Path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

// Fifos is the folder for FIFOs that clients of containerd make.
func (p *Place) Fifos() string { return p.Path("fifo") }

// Sockets is the folder of the shims' sockets.
func (p *Place) Sockets() string { return p.Path("s") }

// RuntimeState is where runc keeps the state of the place's containers.
func (p *Place) RuntimeState() string { return filepath.Join(runtimeState, p.Namespace) }

// Environ is the whole environment for programs of the place. Those of path
// are found first, then the host's.
func (p *Place) Environ(path ...string) []string {
	search := ""
	for _, dir := range path {
		search += dir + ":"
	}
	env := []string{
		"PATH=" + search + os.Getenv("PATH"),
		"HOME=" + p.Dir,
		"TMPDIR=" + p.Path("tmp"),
		"LANG=C.UTF-8",
		EnvMark + "=" + p.Dir,
	}
	return env
}

// Remove ends and removes everything that belongs to the place. It may be
// called more than once; all calls give the first one's answer.
func (p *Place) Remove() error {
	p.once.Do(func() {
		p.err = p.clean()
		p.keeper.dismiss()
	})
	return p.err
}
