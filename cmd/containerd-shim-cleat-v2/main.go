// GOMAXPROCS is given to us; without this, Go's runtime keeps the files of the
// CPU cgroup open all the same.
//
//go:debug containermaxprocs=0

// Command containerd-shim-cleat-v2 runs containers for containerd. This file
// finds out which action was asked; nothing else.
package main

import (
	"io"
	"os"

	"github.com/cleatrun/cleat/shim"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/bootstrap/cleanup"
	"github.com/cleatrun/cleat/shim/bootstrap/early" // start, and most of delete
	"github.com/cleatrun/cleat/shim/bootstrap/introspect"
	"github.com/cleatrun/cleat/shim/config"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
	"github.com/cleatrun/cleat/shim/version"
)

// Set by the linker.
var release, revision string

func main() {
	version.Release, version.Revision = release, revision
	call, err := bootstrap.Parse(os.Args)
	if err == nil {
		err = run(call)
	}
	if err != nil {
		os.Stderr.WriteString(call.Fail(err))
		os.Exit(1)
	}
}

func run(call bootstrap.Call) error {
	switch call.Action {
	case bootstrap.Start: // which early has begun
		return config.Start(*early.Left, bootstrap.Stdout)
	case bootstrap.Options:
		return config.Answer(os.Stdin, bootstrap.Stdout)
	case bootstrap.Delete:
		return cleanup.Delete(call, bootstrap.Stdout, os.Stderr)
	case bootstrap.Info:
		return introspect.Info(call, os.Stdin, bootstrap.Stdout, os.Stderr)
	case bootstrap.Version:
		_, err := io.WriteString(bootstrap.Stdout, version.Text(call.InvokedAs))
		return err
	case bootstrap.Try:
		return shim.Try(bootstrap.Stdout)
	default:
		if handed := arrival.Get(); handed != nil {
			return shim.Resume(handed)
		}
		daemon, err := call.Daemon()
		if err != nil {
			return err
		}
		return shim.Serve(daemon)
	}
}
