package cri

// The CRI cannot be told to keep to a folder: its namespace, CNI's cache and
// the folders of a pod's network are where they are on every machine, and a
// pod may ask for the network of its host. So the tests run as if they had a
// machine of their own, in so far: with their own network, /run, /var/lib and
// /usr/local/bin.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/tools"
)

// envRoom tells this program that it is in the room.
const envRoom = "CLEAT_CRI_ROOM"

func inRoom() bool { return os.Getenv(envRoom) != "" }

// runInRoom runs this program once more, in the room, and returns its exit
// status. What has to be built or fetched is, before: there is no network in
// the room.
func runInRoom() int {
	// The one inside is killed when the thread that has started it ends.
	runtime.LockOSThread()
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	built, err := tools.Ensure(ctx, os.Stdout)
	if err == nil {
		_, err = tools.EnsureBorrowed(ctx, os.Stdout)
	}
	var release tools.Containerd
	if err == nil {
		release, err = tools.Chosen()
	}
	if err == nil {
		err = tools.EnsureContainerd(ctx, os.Stdout, release)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envRoom+"=1", tools.EnvBuilt+"="+built.Dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  unix.SIGKILL,
	}
	err = cmd.Run()
	if ended := (*exec.ExitError)(nil); err != nil && !errors.As(err, &ended) {
		fmt.Fprintln(os.Stderr, "run the tests in a room of their own:", err)
		return 1
	}
	if cmd.ProcessState.ExitCode() < 0 {
		fmt.Fprintln(os.Stderr, "the tests ended:", cmd.ProcessState)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// installed is where `make install` puts the shim.
const installed = "/usr/local/bin"

// dropIn is a folder with the shim under test by the name of containerd's own.
const dropIn = "/run/drop-in"

// networks is the folder of CNI's configuration, in the room.
const networks = "/run/cni"

// bridge gives pods addresses on a bridge of the room's network.
const bridge = `{
  "cniVersion": "1.0.0", "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods0", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}`

// furnish makes the room what its tests take it for.
func furnish() error {
	// Nothing that is mounted from here on is seen outside. Inside, mounts
	// are shared, as they are on a machine with systemd.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("make the room's mounts its own: %w", err)
		}
	}
	for _, dir := range []string{"/run", "/var/lib", installed} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("give the room a %s of its own: %w", dir, err)
		}
	}
	for _, program := range []string{programs.Shim, programs.Runc} {
		if err := os.Symlink(program, filepath.Join(installed, filepath.Base(program))); err != nil {
			return err
		}
	}
	for _, dir := range []string{networks, dropIn} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(shimProgram(), filepath.Join(dropIn, "containerd-shim-runc-v2")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(networks, "pods.conflist"), []byte(bridge), 0o644); err != nil {
		return err
	}
	if out, err := exec.Command(programs.Busybox, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up the room's loopback device: %w: %s", err, out)
	}
	return nil
}
