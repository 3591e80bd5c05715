package vm

import "github.com/cleatrun/cleat/integration/vm/job"

// packages are those of the shim whose own tests a machine runs.
var packages = []string{"oci/cgroup", "oci/rootfs"}

// runPackages runs their tests one after the other. Without udev nothing else loads
// the module of loop devices.
const runPackages = `#!/bin/sh
modprobe loop || exit
status=0
for tests in ` + job.Packages + `-*; do
	"$tests" "$@" || status=$?
done
exit $status
`
