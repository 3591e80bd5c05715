package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
)

// Hold stands where shims bring their events to and lets nothing through until
// it is released. So a test can subscribe to a containerd that has just started
// before it gets what has happened while there was none.
type Hold struct {
	listener net.Listener
	to       string        // where containerd takes events
	released chan struct{} // closed by Release
}

// HoldEvents holds the events of the shims that run. It is called when
// containerd has ended; the next Run makes it take events at another address,
// to which they are passed on after Release.
func (d *Daemon) HoldEvents() (*Hold, error) {
	from := d.ttrpc
	d.ttrpc += "2"
	if err := os.WriteFile(d.Path("config.toml"), d.configuration(), 0o644); err != nil {
		return nil, err
	}
	if err := os.Remove(from); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", from)
	if err != nil {
		return nil, fmt.Errorf("hold events: %w", err)
	}
	h := &Hold{listener: listener, to: d.ttrpc, released: make(chan struct{})}
	go h.accept() // ends by Close
	return h, nil
}

// Release lets the events through, those that were held and those to come.
func (h *Hold) Release() { close(h.released) }

// Close ends the way for events through h.
func (h *Hold) Close() error { return h.listener.Close() }

func (h *Hold) accept() {
	for {
		shim, err := h.listener.Accept()
		if err != nil {
			return
		}
		go h.pass(shim) // ends with either side
	}
}

// pass connects a shim with containerd.
func (h *Hold) pass(shim net.Conn) {
	defer shim.Close()
	<-h.released
	containerd, err := net.Dial("unix", h.to)
	if err != nil {
		return // the shim tries again
	}
	defer containerd.Close()
	go func() { // ends with the connections
		io.Copy(containerd, shim)
		containerd.Close()
	}()
	io.Copy(shim, containerd)
}
