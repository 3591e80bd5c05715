// Package early runs the actions that containerd runs most, `start` and the
// cheap half of `delete`, before the rest of the program is initialised, so that
// what the daemon imports costs them nothing.
//
// It works because Go initialises packages in the order of their import paths
// as soon as what they import is ready (The Go Programming Language
// Specification, Program initialization), and this one imports little and comes
// early in that order. A test holds both. Were it otherwise, the actions would
// still run, and only be slower.
package early

import (
	"os"

	"github.com/cleatrun/cleat/oci/cgroup/graceperiod"
	"github.com/cleatrun/cleat/oci/stack"
	"github.com/cleatrun/cleat/shim/bootstrap"
	"github.com/cleatrun/cleat/shim/upgrade/arrival"
)

// Left is a `start` that is left to main, because there is TOML to be read for
// it, and nil otherwise.
var Left *bootstrap.Starting

func init() {
	call, err := bootstrap.Parse(os.Args)
	if err != nil {
		return // main says so
	}
	var done bool
	// The stacks are those that each was seen to need.
	switch call.Action {
	case bootstrap.Serve:
		stack.Take16K()
		if !arrival.Begin() { // a program that takes over has no time to lose
			graceperiod.BeginLate() // for the container that is to be created
		}
		return
	case bootstrap.Start:
		stack.Take32K()
		graceperiod.BeginApart() // before anything else: it takes longest
		done, err = start(call)
	case bootstrap.Delete:
		stack.Take8K()
		done, err = call.DeleteFinished(bootstrap.Stdout)
	default:
		return
	}
	if err != nil {
		os.Stderr.WriteString(call.Fail(err))
		os.Exit(1)
	}
	if done {
		os.Exit(0)
	}
}

func start(call bootstrap.Call) (done bool, err error) {
	starting, err := call.ReadStart(os.Stdin)
	if err != nil {
		return false, err
	}
	said, plain, err := starting.Plain()
	if err != nil {
		return false, err
	}
	if !plain {
		Left = &starting
		return false, nil
	}
	return true, starting.Run(said, false, bootstrap.Stdout)
}
