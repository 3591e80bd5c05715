package stdio

import "golang.org/x/sys/unix"

// sink is where a relay writes to.
type sink interface {
	// write writes what can be without waiting and returns how much that was:
	// with an error, unless it was all. EAGAIN says that the descriptor has to be
	// waited for, EPIPE that nobody will ever read, anything else may be over
	// the next time.
	write(b []byte) (int, error)
	// descriptor is the number of what can be waited for, or -1.
	descriptor() int
	close()
}

// pipeSink is a FIFO, a logger's pipe, or the null device.
type pipeSink struct{ *end }

func (s pipeSink) write(b []byte) (int, error) { return write(s.fd, b) }
func (s pipeSink) descriptor() int             { return s.fd }

// fileSink is a file, which may be that of both streams.
type fileSink struct{ *logFile }

func (s fileSink) write(b []byte) (int, error) {
	n, err := s.append(b)
	if err == unix.EAGAIN || err == unix.EPIPE { // of a device
		err = unix.EIO
	}
	return n, err
}

func (s fileSink) descriptor() int { return -1 }
func (s fileSink) close()          { s.release() }
