package main

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/cleatrun/cleat/integration/chaos/mark"
	"github.com/cleatrun/cleat/integration/chaos/stream"
)

// failed is the exit code of a guest that could not do what it was to.
const failed = 99

// guest is what runs in a container: it writes to both of its outputs, in pieces
// with pauses, stays for a while, and ends. SIGTERM ends it with its code plus
// one. Its arguments:
//
//	MARK NAME TERMINAL OUT ERR PIECE PAUSE STAY CODE
//
// bytes of stdout and of stderr, bytes of a piece, microseconds between pieces,
// milliseconds at the end; -1 stays for ever.
func guest(args []string) {
	if len(args) != 9 {
		os.Exit(failed)
	}
	page, err := mark.Open(args[0])
	if err != nil {
		os.Exit(failed)
	}
	var numbers [7]int64
	for i := range numbers {
		if numbers[i], err = strconv.ParseInt(args[2+i], 10, 64); err != nil {
			os.Exit(failed)
		}
	}
	terminal, out, errs, piece, pause, stay, code := numbers[0] != 0, numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]

	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	page.Starts.Add(1) // from here on SIGTERM is caught

	// until waits, and ends the guest if it is asked to meanwhile: between two
	// writes, so that what it has written is known.
	until := func(passed <-chan time.Time) {
		select {
		case <-asked:
			end(page, code+1)
		case <-passed:
		}
	}
	buffer := make([]byte, piece)
	for page.Out.Load() < out || page.Err.Load() < errs {
		if !write(page, 1, args[1]+"/out", out, terminal, buffer) || !write(page, 2, args[1]+"/err", errs, terminal, buffer) {
			end(page, failed)
		}
		until(time.After(time.Duration(pause) * time.Microsecond))
	}
	if stay < 0 {
		until(nil)
	}
	until(time.After(time.Duration(stay) * time.Millisecond))
	end(page, code)
}

// write writes one piece of a stream.
func write(page *mark.Page, fd int, name string, all int64, terminal bool, buffer []byte) bool {
	done := &page.Out
	if fd == 2 {
		done = &page.Err
	}
	at := done.Load()
	piece := buffer[:min(int64(len(buffer)), all-at)]
	stream.Fill(piece, name, at, terminal)
	for len(piece) > 0 {
		n, err := syscall.Write(fd, piece)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) {
			continue
		}
		if err != nil {
			page.Failed.Store(int64(err.(syscall.Errno)))
			return false
		}
		done.Add(int64(n))
		piece = piece[n:]
	}
	return true
}

func end(page *mark.Page, code int64) {
	page.Ending.Store(code + 1)
	os.Exit(int(code))
}
