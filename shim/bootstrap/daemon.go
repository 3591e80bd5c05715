package bootstrap

import (
	"errors"
	"fmt"
	"os"

	"github.com/cleatrun/cleat/oci"
	"github.com/cleatrun/cleat/shim/options"
	"golang.org/x/sys/unix"
)

// listenerFD is the descriptor on which the daemon inherits its socket.
const listenerFD = 3

// ttrpcAddressVariable is in the environment of every action and of the daemon.
const ttrpcAddressVariable = "TTRPC_ADDRESS"

// Daemon is what the process that serves containers is told. This is the
// contract between `start` and it:
//
//	NAME -namespace NS -id ID -address GRPC [-debug]
//
// NAME is the name under which containerd ran `start`; the binary is the same.
// The working directory is the bundle of the container ID, which may vanish.
// Descriptors 0, 1 and 2 are /dev/null, 3 is a listening Unix socket on which
// connections may wait already; no others are inherited. The environment is
// that of `start` with GOMAXPROCS=1, OTEL_SERVICE_NAME=containerd-shim-ID,
// containerd's TTRPC_ADDRESS, and without huge pages for Go's heap by GODEBUG. The process leads a process group of its own; its
// OOM score, its cgroup and its core scheduling group are set by `start`.
//
// `start` does not wait for the daemon: the socket holds what comes early. It
// may kill the daemon by SIGKILL as long as containerd knows nothing of it.
//
// To end, a daemon closes Socket and calls RemoveSocket, so that a `start`
// of its group either finds it alive or makes a new one. To a Connect with the
// metadata JoinKey it answers only if it goes on, else it closes the connection
// at once.
type Daemon struct {
	Namespace string
	// ID is the container for which the daemon was started, which is not
	// always the name of the group that it serves.
	ID string
	// Address is the path of containerd's gRPC socket. TTRPCAddress is where
	// events go; it is empty when the caller wants none.
	Address      string
	TTRPCAddress string
	// Bundle is the working directory at the start.
	Bundle string
	// InvokedAs is argv[0], RuntimeName what containerd calls a runtime of this
	// name. options.Resolve takes the first.
	InvokedAs   string
	RuntimeName string
	// Said is what was said to the start. It counts for containers for which
	// no start is run, those of a sandbox.
	Said  options.Said
	Debug bool
	// Socket is the listening socket, non-blocking; the daemon closes it. Closing
	// does not remove its file, SocketPath.
	Socket     *os.File
	SocketPath string
}

// Daemon takes over what `start` has left to the daemon. It is called once.
func (c Call) Daemon() (Daemon, error) {
	fd, path, err := c.listener()
	if err != nil {
		return Daemon{}, err
	}
	d := Daemon{
		Namespace:    c.Namespace,
		ID:           c.ID,
		Address:      c.Address,
		TTRPCAddress: os.Getenv(ttrpcAddressVariable),
		InvokedAs:    c.InvokedAs,
		RuntimeName:  options.RuntimeName(c.InvokedAs),
		Debug:        c.Debug,
		Socket:       os.NewFile(uintptr(fd), path),
		SocketPath:   path,
	}
	if d.Bundle, err = os.Getwd(); err != nil {
		d.Socket.Close()
		return Daemon{}, fmt.Errorf("take over from start: %w", err)
	}
	if d.Said, _, err = options.Kept(oci.Bundle(d.Bundle)); err != nil {
		d.Socket.Close()
		return Daemon{}, fmt.Errorf("take over from start: %w", err)
	}
	return d, nil
}

// RemoveSocket removes the socket's file when Socket is closed. A `start` of the
// group that was there first has seen that nobody listens, and made a new one,
// which stays.
func (d Daemon) RemoveSocket() error {
	if err := removeDeadSocket(d.SocketPath); err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// listener returns the listening socket and the path of its file.
func (c Call) listener() (fd int, path string, err error) {
	if c.Socket != "" {
		fd, err = listen(c.Socket)
		return fd, c.Socket, err
	}
	accepts, err := unix.GetsockoptInt(listenerFD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && accepts == 1 {
		name, err := unix.Getsockname(listenerFD)
		if address, ok := name.(*unix.SockaddrUnix); err == nil && ok {
			unix.CloseOnExec(listenerFD)
			return listenerFD, address.Name, unix.SetNonblock(listenerFD, true)
		}
	}
	return -1, "", errors.New("no action was given, and there is no listening socket on descriptor 3: this is the form in which `start` runs the daemon")
}
