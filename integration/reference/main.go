// Command reference is what a shim's memory is compared with: a Go process that
// listens on a socket, as small as one can be. It tells when it does and ends
// with its input.
package main

import (
	"io"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	go listener.Accept() // until the end of the process
	os.Stdout.WriteString("listening\n")
	io.Copy(io.Discard, os.Stdin)
}
