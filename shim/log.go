package shim

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// timeFormat is that of containerd's own log.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// log writes to the FIFO that containerd copies to its own log, in logrus' text
// form. Lines are lost when nobody reads: a shim must never wait for its log.
// The zero value loses everything.
type log struct {
	runtime string
	debug   bool

	mu   sync.Mutex // guards what follows
	fd   int        // 0 is none
	lost int
	torn bool // the last line was taken in part
}

// openLog opens the bundle's log. It is opened for reading too, so that there
// is no EPIPE between one containerd and the next. A bundle without a FIFO of
// that name has no log.
func openLog(path, runtime string, debug bool) *log {
	l := &log{runtime: runtime, debug: debug}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return l
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return l
	}
	// As stderr, so that what Go's runtime says when it gives up goes there too.
	defer unix.Close(fd)
	if unix.Dup3(fd, unix.Stderr, 0) == nil {
		l.fd = unix.Stderr
	}
	return l
}

// resumeLog is the log of a program that goes on with another's descriptors.
func resumeLog(runtime string, debug bool) *log {
	l := &log{runtime: runtime, debug: debug}
	var st unix.Stat_t
	if err := unix.Fstat(unix.Stderr, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		l.fd = unix.Stderr
	}
	return l
}

// Warn logs what an operator should know.
func (l *log) Warn(format string, args ...any) { l.write("warning", format, args...) }

// Info logs what is worth a line in any case.
func (l *log) Info(format string, args ...any) { l.write("info", format, args...) }

// Debug logs what is only wanted when containerd is verbose.
func (l *log) Debug(format string, args ...any) {
	if l.debug {
		l.write("debug", format, args...)
	}
}

func (l *log) write(level, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd == 0 {
		return
	}
	message := fmt.Sprintf(format, args...)
	if l.lost > 0 {
		message += fmt.Sprintf(" (%d lines before this one are lost)", l.lost)
	}
	line := "time=" + strconv.Quote(time.Now().Format(timeFormat)) + " level=" + level +
		" msg=" + strconv.Quote(message) + " runtime=" + l.runtime + "\n"
	if l.torn {
		line = "\n" + line
	}
	n, err := unix.Write(l.fd, []byte(line))
	if err != nil {
		l.lost++
		return
	}
	// A pipe takes up to PIPE_BUF bytes as a whole, longer lines in part.
	l.lost, l.torn = 0, n < len(line)
}
