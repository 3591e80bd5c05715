package bootstrap

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// defaultSocketDir is where containerd's own shim keeps its sockets.
	defaultSocketDir = "/run/containerd/s"
	// socketScheme begins the address that containerd dials.
	socketScheme = "unix://"
	// maxSocketPath is what containerd's shims allow themselves; unix(7) has
	// 108 bytes with the final zero.
	maxSocketPath = 106
	// backlog is how many connections may wait for the daemon to boot; the
	// kernel cuts it to net.core.somaxconn.
	backlog = 4096
)

// socketPath is where the shim of a group listens. The name is that of
// containerd's own shim, which its tests and tools compute as well.
func socketPath(dir, grpcAddress, namespace, group string) string {
	sum := sha256.Sum256([]byte(path.Join(grpcAddress, namespace, group)))
	return path.Join(dir, fmt.Sprintf("%x", sum))
}

// socketDir makes sure of the folder for the socket: given, if containerd
// gave one, else the one that containerd itself would choose.
func socketDir(given string) (string, error) {
	if given != "" {
		if !path.IsAbs(given) {
			return "", fmt.Errorf("socket folder %q is not absolute: %w", given, errdefs.ErrInvalidArgument)
		}
		return given, makeSocketDir(given)
	}
	uid := os.Geteuid()
	if uid == 0 {
		return defaultSocketDir, makeSocketDir(defaultSocketDir)
	}
	var failures []error
	for _, dir := range userSocketDirs(uid) {
		err := makeOwnSocketDir(dir, uid)
		if err == nil {
			return dir, nil
		}
		failures = append(failures, err)
	}
	return "", errors.Join(failures...)
}

// userSocketDirs are the folders that containerd tries for a user other than
// root, in its order.
func userSocketDirs(uid int) []string {
	dirs := []string{defaultSocketDir}
	if xdg := os.Getenv("XDG_RUNTIME_DIR"); path.IsAbs(xdg) {
		dirs = append(dirs, path.Join(xdg, "containerd", "s"))
	}
	id := strconv.Itoa(uid)
	return append(dirs, "/run/"+id+"/containerd/s", "/tmp/containerd-s-"+id)
}

func makeSocketDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make socket folder: %w", err)
	}
	return nil
}

// makeOwnSocketDir makes sure that dir is the user's alone: in /tmp, somebody
// else may have been there before.
func makeOwnSocketDir(dir string, uid int) error {
	if err := makeSocketDir(dir); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("make socket folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != uid {
		return fmt.Errorf("socket folder %s belongs to somebody else: %w", dir, errdefs.ErrPermissionDenied)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("make socket folder: %w", err)
	}
	return nil
}

// listen makes a socket at path, open to this user alone, and returns its
// descriptor, non-blocking and closed on exec.
func listen(path string) (fd int, err error) {
	if len(path) > maxSocketPath {
		return -1, fmt.Errorf("socket path %s has %d bytes, %d are allowed: %w", path, len(path), maxSocketPath, errdefs.ErrInvalidArgument)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	old := unix.Umask(0o177) // the file is never open to others, not for a moment
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	unix.Umask(old)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind socket %s: %w", path, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		unix.Close(fd)
		os.Remove(path)
		return -1, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	return fd, nil
}

// removeLockWait bounds the wait for a `start` that holds the socket's lock.
const removeLockWait = time.Second

// removeDeadSocket removes the file of a socket on which nobody listens. Whether
// somebody does is asked by connecting: that the file is another one than before
// does not show in its inode, whose number may be used again.
func removeDeadSocket(path string) error {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	held, err := lockSocket(path, removeLockWait)
	if err != nil {
		return err
	}
	defer held.release()
	fd, err := connect(path, time.Second)
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return os.Remove(path)
}

// addressPath is the path in an address as `start` answers it.
func addressPath(address string) (socket string, ok bool) {
	socket, ok = strings.CutPrefix(address, socketScheme)
	return socket, ok && path.IsAbs(socket)
}
