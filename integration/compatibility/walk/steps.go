// Package walk walks the whole life of containers on a containerd of any
// release, with any OCI runtime, as a user of ctr and one of containerd's Go
// client: pull, run, exec, terminal, statistics, a restart of containerd under
// what runs, the end. It also brings another release of containerd under what
// runs, and lets the shim join a pod whose shim is an older one.
//
// The walks are tests; each step is a test of its own, so a report (package
// compatibility) can be made of what `go test -json` says. They are run in a
// cell, because the shims of containerd before 2.3 have their sockets where all
// have them.
package walk

// EnvAll makes the tests walk on all releases and with all OCI runtimes, not
// only on those that cost no time to build.
const EnvAll = "CLEAT_TEST_COMPATIBILITY"

// Runtimes are the OCI runtimes that are walked with, and Users who walks.
var (
	Runtimes = []string{"runc", "runc-1.1", "crun"}
	Users    = []string{"ctr", "client"}
)

// EnvCell tells the tests that they are in a cell of their own, or in a machine,
// and that what they need is in the folder that tools.EnvBuilt names.
const EnvCell = "CLEAT_COMPATIBILITY_CELL"

// Step is one step of a walk.
type Step struct {
	Name string
	What string // it shows
}

// Steps are those of every walk, in order.
var Steps = []Step{
	{"pull", "an image is pulled from a registry"},
	{"run", "a container in the foreground: input, output, errors, exit status"},
	{"events", "its events: create, start, exit, delete, in this order"},
	{"start", "a container is started that stays, and is listed as running"},
	{"exec", "four execs at once, each with its own output and exit status"},
	{"terminal", "a shell on a terminal of a certain size"},
	{"ps", "the processes of the container are listed, those of an exec with them"},
	{"metrics", "its memory is told"},
	{"pause", "it is paused and goes on"},
	{"away", "containerd is killed; the container and an exec go on to talk"},
	{"found", "containerd is back, and finds the same process running"},
	{"exit", "a container that has ended meanwhile tells its status"},
	{"streams", "the container and the exec still hear and talk"},
	{"again", "a new exec"},
	{"stop", "a signal is caught, and the exit status told"},
	{"clean", "nothing is left: processes, mounts, cgroups, sockets, files, records"},
}

// Changes are the steps of a walk during which another release of containerd
// takes the place of the first one.
var Changes = []Step{
	{"before", "containers are started under the first release"},
	{"away", "it is stopped; a container and an exec go on to talk"},
	{"found", "the other release is there, and finds the same process running"},
	{"exit", "a container that has ended meanwhile tells its status"},
	{"streams", "the container and the exec still hear and talk"},
	{"again", "a new exec"},
	{"new", "a new container"},
	{"stop", "a signal is caught, and the exit status told"},
	{"clean", "nothing is left"},
}

// Joins are the steps of a walk in which a pod's shim is an older one.
var Joins = []Step{
	{"leader", "a container of the pod under containerd's own shim, or an earlier cleat"},
	{"join", "cleat has been installed in its place; a second container has the same shim"},
	{"exec", "execs in both"},
	{"newer", "containerd has been replaced by the newest; a third container has the same shim"},
	{"stop", "all end, each with its status"},
	{"clean", "nothing is left"},
}
