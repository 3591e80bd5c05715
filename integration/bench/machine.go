package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/place"
	"github.com/cleatrun/cleat/integration/tools"
)

// machine is where it was measured.
type machine struct {
	Kernel, Cgroups, Go string
	CPUs                int
	Shim                string // release
	Program             string // what the shim is, whatever its release: a digest
	Load                string // of the last minute, before it began
	Neighbours          int    // other containerds and shims of tests
}

func (m machine) String() string {
	return fmt.Sprintf("Linux %s, %d CPUs, cgroup %s, %s, load %s before it began\n", m.Kernel, m.CPUs, m.Cgroups, m.Go, m.Load)
}

// sameProgram tells that two results are of the same shim.
func (m machine) sameProgram(other machine) bool {
	return m.Program != "" && m.Program == other.Program
}

// describe looks at the machine.
func (r *results) describe(b *bench) {
	var name unix.Utsname
	unix.Uname(&name)
	// What follows the number names who built it.
	kernel, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	m := machine{Kernel: kernel, CPUs: runtime.NumCPU(), Go: runtime.Version(), Cgroups: "v1", Program: b.program}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		m.Cgroups = "v2"
	}
	load, _ := os.ReadFile("/proc/loadavg")
	m.Load, _, _ = strings.Cut(string(load), " ")
	if out, err := exec.CommandContext(b.ctx, b.tools.Shim, "-v").Output(); err == nil {
		m.Shim = strings.Join(strings.Fields(string(out)), " ")
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), place.EnvMark+"=") {
			m.Neighbours++
		}
	}
	r.Machine = m
}

// programOf is the same for two builds of the same sources. Its release is not: that
// of a tree whose document has just been written is another one.
func programOf(ctx context.Context, t tools.Tools) (string, error) {
	path, err := t.Unstamped(ctx)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(text)), nil
}

// lookAtMachine warns of what will disturb.
func (b *bench) lookAtMachine() {
	if n := b.results.Machine.Neighbours; n > 0 {
		fmt.Fprintf(b.progress, "%d processes of other test runs, or of one that was broken off, run on this machine: they are left alone, figures are less steady\n", n)
	}
}
