package vm

import (
	"testing"

	"github.com/cleatrun/cleat/integration/vm/job"
)

// TestPackages runs the tests of what reads cgroups and mounts by itself, against
// the libraries that are its reference, on a kernel that has all controllers on
// cgroup v2, idmapped mounts and loop devices.
func TestPackages(t *testing.T) {
	tests := "^(Test|Fuzz)"
	if testing.Short() { // what the kernel matters for most
		tests = "^Test(StatIsThat|StatWhileAGroupOfV2|SameAsContainerd$|ReadOnlyBind|LoopDevicesAre|DeadFUSE)"
	}
	inMachine(t, "packages on cgroup v2", job.Job{}, job.Packages, tests)
}
