package main

import (
	"maps"
	"slices"
	"strings"
)

// columns are what is told of every client.
var columns = []string{"run", "exec", "terminal", "logs", "statistics", "pause", "OOM", "restart", "stop", "events"}

// room is a folder of tests of one client.
type room struct {
	folder string
	kinds  []kind
	tests  map[string][]string // for each of columns that it is about
}

// kind is one client of a room: subtests that are named for it, or all.
type kind struct{ name, sub string }

// rooms are those of the clients that have tests of their own.
func rooms() []room {
	return []room{
		{
			folder: "./cri",
			kinds:  []kind{{"CRI", ""}},
			tests: map[string][]string{
				"run":        {"TestPodHasOneShim", "TestDocumentedConfiguration"},
				"exec":       {"TestExecSync", "TestExecSyncsAtOnce", "TestExecWithStreams"},
				"terminal":   {"TestExecWithATerminal", "TestAttachToATerminal"},
				"logs":       {"TestLogHasAllThatIsWritten", "TestLogIsRotated"},
				"statistics": {"TestStats"},
				"OOM":        {"TestOOMKilled"},
				"restart":    {"TestContainerdIsKilledUnderAPod", "TestPodEndsWhileContainerdIsAway"},
				"stop":       {"TestStopWithGrace"},
				"events":     {"TestEvents"},
			},
		},
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
	}
}

// pattern selects the tests that are told of.
func (r room) pattern() string {
	var names []string
	for _, column := range slices.Sorted(maps.Keys(r.tests)) {
		names = append(names, r.tests[column]...)
	}
	slices.Sort(names)
	return "^(" + strings.Join(slices.Compact(names), "|") + ")$"
}
