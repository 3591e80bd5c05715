// Command cast plays the parts of chaos that are programs of their own: what runs
// in the containers, the OCI runtime that is slow or killed, the logger. It is
// what it is called as. It has no dependencies, because it is started thousands
// of times.
package main

import (
	"os"
	"path/filepath"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "guest":
		guest(os.Args[1:])
	case "runc":
		runtime(os.Args)
	case "logger":
		logger(os.Args[1:])
	}
	os.Exit(111)
}
