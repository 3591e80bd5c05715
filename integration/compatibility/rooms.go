package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/cleatrun/cleat/integration/tools"
)

// columns are what is told of every client.
var columns = []string{"run", "configured", "exec", "terminal", "logs", "statistics", "pause", "OOM", "restart", "stop", "events"}

// room is a folder of tests of one client, with one release of containerd, if that
// can be chosen.
type room struct {
	folder  string
	release tools.Containerd
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
			"run":        {"TestPodHasOneShim"},
			"configured": {"TestDocumentedConfiguration"},
			"exec":       {"TestExecSync", "TestExecSyncsAtOnce", "TestExecWithStreams"},
			"terminal":   {"TestExecWithATerminal", "TestAttachToATerminal"},
			"logs":       {"TestLogHasAllThatIsWritten", "TestLogIsRotated"},
			"statistics": {"TestStats"},
			"OOM":        {"TestOOMKilled"},
			"restart":    {"TestContainerdIsKilledUnderAPod", "TestPodEndsWhileContainerdIsAway"},
			"stop":       {"TestStopWithGrace/willing", "TestStopWithGrace/deaf", "TestStopWithGrace/impatient"},
			"events":     {"TestEvents"},
		},
	}
}

// rooms are those of the clients that have tests of their own.
func rooms() (list []room) {
	for _, release := range tools.Containerds {
		if release.Name != "1.7-debian" {
			list = append(list, underCRI(release))
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
	return r.folder + " of " + r.release.Name
}

// notOlder is what only newer releases of containerd do: a container's own signal
// to stop.
const notOlder = "TestStopWithGrace/own-signal"

// pattern selects the tests that are told of.
func (r room) pattern() string {
	var names []string
	for _, column := range slices.Sorted(maps.Keys(r.tests)) {
		for _, test := range r.tests[column] {
			name, _, _ := strings.Cut(test, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return "^(" + strings.Join(slices.Compact(names), "|") + ")$"
}
