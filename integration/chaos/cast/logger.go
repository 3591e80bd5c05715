package main

import (
	"os"
)

// Piece is how many bytes a logger reads at once: what it loses when it is
// killed is at most that of each stream.
const piece = 4096

// logger appends what a container writes to the files OUT and ERR of its arguments, and
// its own pid to the file PIDS. Its arguments come in whatever order the URI has
// them, as name and value.
func logger(args []string) {
	named := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		named[args[i]] = args[i+1]
	}
	// It tells that it is ready by closing what is its fifth.
	ended := make(chan bool)
	for fd, name := range map[uintptr]string{3: "out", 4: "err"} {
		to, err := os.OpenFile(named[name], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		fail(err)
		go pass(os.NewFile(fd, name), to, ended)
	}
	os.NewFile(5, "ready").Close()
	<-ended
	<-ended
	os.Exit(0)
}

// pass copies until the end of from. It tries again to write what cannot be
// written, as a full disk may have room later.
func pass(from, to *os.File, ended chan<- bool) {
	buffer := make([]byte, piece)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			_, err := to.Write(buffer[:n])
			fail(err)
		}
		if err != nil {
			ended <- true
			return
		}
	}
}
