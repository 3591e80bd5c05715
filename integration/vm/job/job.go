// Package job is what a virtual machine and its host agree on: the file that
// tells the machine what to run, and the port through which it answers.
package job

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Where things are in the machine.
const (
	Path     = "/cleat/job.json" // a Job
	Guest    = "/cleat/guest"    // the program of package vm/guest
	Programs = "/cleat/programs" // what the machine's CLEAT_BUILT names
	Tests    = "/cleat/tests"    // package integration's test binary
	PodTests = "/cleat/podtests" // package cri's
	Walks    = "/cleat/walks"    // package walk's
	Chaos    = "/cleat/chaos"    // the command chaos's
	Packages = "/cleat/packages" // a program that runs those of packages of the shim itself
	Port     = "cleat.results"   // name of the virtio-serial port
	Systemd  = "systemd"         // a Job's Init
)

// Job is what a machine does before it ends.
type Job struct {
	// Init is the program that starts the system: "" for a small one that does
	// nothing but run the command, or Systemd.
	Init string `json:"init,omitempty"`

	Command []string `json:"command"`
	Env     []string `json:"env"`
	Dir     string   `json:"dir"`
}

// Read gives the job of the machine that this process runs in.
func Read() (Job, error) {
	var j Job
	text, err := os.ReadFile(Path)
	if err != nil {
		return j, fmt.Errorf("read the job: %w", err)
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return j, fmt.Errorf("read the job %s: %w", Path, err)
	}
	return j, nil
}

// The first and the last line that a machine writes to the port; all that is
// between them was written by the command. The mark is what test2json takes
// for the beginning of a line that no test wrote.
const (
	mark  = "\x16"
	began = mark + "machine: began on Linux "
	ended = mark + "machine: ended with status "
)

// Began is the first line of a machine with this kernel.
func Began(kernel string) string { return began + kernel + "\n" }

// ParseBegan finds the kernel in the first line.
func ParseBegan(line string) (kernel string, ok bool) {
	_, kernel, ok = strings.Cut(strings.TrimSuffix(line, "\n"), began)
	return kernel, ok
}

// Ended is the last line: the command's exit status, or -1 when there is none.
func Ended(status int) string { return ended + strconv.Itoa(status) + "\n" }

// ParseEnded finds the status in the last line.
func ParseEnded(line string) (status int, ok bool) {
	_, number, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ended)
	if !ok {
		return 0, false
	}
	status, err := strconv.Atoi(number)
	return status, err == nil
}
