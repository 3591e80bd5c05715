// Command pause does nothing until it is killed.
package main

import "syscall"

func main() {
	for {
		syscall.Pause()
	}
}
