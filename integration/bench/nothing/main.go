// Command nothing is the least that a Go process can be: what is measured of it is
// Go's share of what is measured of a shim.
package main

import (
	"os"
	"syscall"
)

func main() {
	if len(os.Args) > 1 { // only its start is asked for
		return
	}
	os.Stdout.WriteString("ready\n")
	// Not os/signal, which would be threads that a shim can do without.
	for {
		syscall.Pause()
	}
}
