package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/integration/tools"
)

// columns are what is told of every client.
var columns = []string{"run", "configured", "exec", "terminal", "logs", "statistics", "pause", "OOM", "user namespace", "restart", "stop", "events"}

// room is a folder of tests of one client, with one release of containerd, if that
// can be chosen.
type room struct {
	folder  string
	release tools.Containerd
	own     bool // with the shim of that release in cleat's place
	kinds   []kind
	tests   map[string][]string // for each of columns that it is about
}

// kind is one client of a room: subtests that are named for it, or all.
type kind struct{ name, sub string }

// underCRI is the room of the CRI with a release of containerd.
func underCRI(release tools.Containerd) room {
	return room{
		folder:  "./cri",
		release: release,
		kinds:   []kind{{"CRI " + release.Name, ""}},
		tests: map[string][]string{
			"run":            {"TestPodHasOneShim"},
			"configured":     {"TestDocumentedConfiguration/README.md0", "TestDocumentedConfiguration/kubernetes.md0", "TestDocumentedConfiguration/kubernetes.md1"},
			"exec":           {"TestExecSync", "TestExecSyncsAtOnce", "TestExecWithStreams"},
			"terminal":       {"TestExecWithATerminal", "TestAttachToATerminal"},
			"logs":           {"TestLogHasAllThatIsWritten", "TestLogIsRotated"},
			"statistics":     {"TestStats"},
			"OOM":            {"TestOOMKilled"},
			"user namespace": {"TestUserNamespace/own", "TestUserNamespace/host", "TestUserNamespace/volume", "TestUserNamespace/streams"},
			"restart":        {"TestContainerdIsKilledUnderAPod", "TestPodEndsWhileContainerdIsAway"},
			"stop":           {"TestStopWithGrace/willing", "TestStopWithGrace/deaf", "TestStopWithGrace/impatient", "TestStopWithGrace/image-signal", "TestStopWithGrace/own-signal"},
			"events":         {"TestEvents"},
		},
	}
}

// withOwn is the same room with the shim that belongs to its release of containerd.
// What is about cleat alone is not in it.
func (r room) withOwn() room {
	r.own = true
	r.kinds = []kind{{r.kinds[0].name + " own", ""}}
	r.tests = maps.Clone(r.tests)
	delete(r.tests, "configured")
	return r
}

// rooms are those of the clients that have tests of their own.
func rooms() (list []room) {
	for _, release := range tools.Containerds {
		if release.Name != "1.7-debian" {
			list = append(list, underCRI(release), underCRI(release).withOwn())
		}
	}
	return append(list, []room{
		{
			folder: "./docker",
			kinds: []kind{
				{"Docker 20.10, cleat as the drop-in", "/20.10-drop-in"},
				{"Docker 26.1, cleat as the drop-in", "/26.1-drop-in"},
				{"Docker 26.1, `--runtime`", "/26.1-runtime"},
				{"Docker 26.1, `daemon.json`", "/26.1-daemon.json"},
			},
			tests: map[string][]string{
				"run":        {"TestShimThatRunsIsTheOneUnderTest", "TestOutputAndStatusesOfRunAndExec", "TestSeveralAtOnce"},
				"exec":       {"TestOutputAndStatusesOfRunAndExec", "TestHealthChecks"},
				"terminal":   {"TestTerminal"},
				"logs":       {"TestLogsHoldWhatTheContainerWrote"},
				"statistics": {"TestTopStatsPauseKillStopWait"},
				"pause":      {"TestTopStatsPauseKillStopWait"},
				"OOM":        {"TestOOMIsTold"},
				"restart":    {"TestContainersOutliveContainerd", "TestContainersOutliveDockerd", "TestContainersOutliveBoth"},
				"stop":       {"TestTopStatsPauseKillStopWait"},
				"events":     {"TestRestartPolicy"},
			},
		},
		{
			folder: "./nerdctl",
			kinds:  []kind{{"nerdctl", ""}},
			tests: map[string][]string{
				"run":     {"TestRunExecLogsStopRemove"},
				"exec":    {"TestRunExecLogsStopRemove"},
				"logs":    {"TestRunExecLogsStopRemove", "TestRotatedLogIsComplete"},
				"restart": {"TestLogGoesOnAfterContainerdWasKilled"},
				"stop":    {"TestRunExecLogsStopRemove"},
			},
		},
		{
			folder: "./rootless",
			kinds:  []kind{{"ctr of an ordinary user", ""}},
			tests: map[string][]string{
				"run":     {"TestContainersOfAnOrdinaryUser"},
				"exec":    {"TestContainersOfAnOrdinaryUser"},
				"restart": {"TestContainersOfAnOrdinaryUserOutliveContainerd"},
			},
		},
	}...)
}

// about tells the tests of the room from the same with another release.
func (r room) about() string {
	if r.release.Name == "" {
		return r.folder
	}
	if r.own {
		return r.folder + " of " + r.release.Name + " with its own shim"
	}
	return r.folder + " of " + r.release.Name
}

// names are the tests that are told of.
func (r room) names() (names []string) {
	for _, column := range columns {
		names = append(names, r.tests[column]...)
	}
	return names
}

// pattern selects the tests that are told of.
func (r room) pattern() string {
	var names []string
	for _, test := range r.names() {
		name, _, _ := strings.Cut(test, "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return "^(" + strings.Join(slices.Compact(names), "|") + ")$"
}
