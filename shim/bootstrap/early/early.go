// Package early runs the actions that containerd runs most, `start` and the
// cheap half of `delete`, before the rest of the program is initialised. The
// protobuf runtime and its registries alone cost more than what these do.
//
// It works because Go initialises packages in the order of their import paths
// as soon as what they import is ready (The Go Programming Language
// Specification, Program initialization), and this one imports little and comes
// early in that order. A test holds both. Were it otherwise, the actions would
// still run, and only be slower.
package early

import (
	"os"

	"github.com/cleatrun/cleat/shim/bootstrap"
)

func init() {
	call, err := bootstrap.Parse(os.Args)
	if err != nil {
		return // main says so
	}
	switch call.Action {
	case bootstrap.Start:
		err = call.Start(os.Stdin, bootstrap.Stdout)
	case bootstrap.Delete:
		var done bool
		if done, err = call.DeleteFinished(bootstrap.Stdout); !done {
			return
		}
	default:
		return
	}
	if err != nil {
		os.Stderr.WriteString(call.Fail(err))
		os.Exit(1)
	}
	os.Exit(0)
}
