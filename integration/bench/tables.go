package main

import "fmt"

// tables are those of the document besides that of the budgets.
var tables = append([]table{
	{"life", lifeRows("life")},
	{"life-fifo", lifeRows("life-fifo")},
	{"parallel", lifeRows("parallel")},
	{"exec", []tableRow{{"exec.total", "exec, start, wait, delete; ms"}, {"exec.cpu", "CPU of the shim; ms"}}},
	{"cpu", []tableRow{
		{"cpu.start", "`start`; ms"}, {"cpu.daemon", "daemon; ms"}, {"cpu.delete", "`delete` with what it runs; ms"},
		{"cpu.runtime", "what the daemon runs (the OCI runtime); ms"}, {"cpu.total", "together; ms"},
	}},
	{"memory", memoryRows()},
	{"kernel", []tableRow{{"kernel.memory", "kernel memory of a shim; KiB"}}},
	{"limits", []tableRow{
		{"floor.private", "private memory; KiB"}, {"floor.rss", "RSS; KiB"}, {"floor.pss", "PSS; KiB"}, {"floor.threads", "threads"}, {"floor.cpu", "CPU of its start and end; ms"}, {"floor.size", "size; MB"},
		{"conmon.private", "private memory of conmon; KiB"}, {"conmon.rss", "its RSS; KiB"}, {"conmon.pss", "its PSS; KiB"}, {"conmon.threads", "its threads"}, {"conmon.cpu", "its CPU over a container's life; ms"},
	}},
	{"output", []tableRow{
		{"output-64k.rate", "writes of 64 KiB; MB/s"}, {"output-64k.cpu", "CPU of the shim; s per GiB"},
		{"output-64k.client", "CPU of the client; s per GiB"}, {"output-64k.writer", "CPU of what writes; s per GiB"},
		{"output-100.rate", "writes of 100 bytes; MB/s"}, {"output-100.cpu", "CPU of the shim; s per GiB"},
		{"output-100.client", "CPU of the client; s per GiB"}, {"output-100.writer", "CPU of what writes; s per GiB"},
		{"terminal.rate", "a terminal; MB/s"}, {"terminal.cpu", "CPU of the shim; s per GiB"},
	}},
	{"output-bounds", boundRows()},
	{"metrics", []tableRow{
		{"metrics.time", "Metrics through containerd; ms"}, {"metrics.shim", "Stats of the shim itself; ms"}, {"metrics.cpu", "CPU of the shim; ms"},
		{"state.time", "State, which reads nothing, through containerd; ms"}, {"state.cpu", "CPU of the shim; ms"},
	}},
	{"kill", []tableRow{{"kill.time", "Kill through containerd; ms"}, {"kill.cpu", "CPU of the shim; ms"}, {"kill.spawned", "programs run"}}},
	{"updown", []tableRow{{"updown.up", "up; ms per container"}, {"updown.down", "down; ms per container"}, {"updown.total", "together; ms per container"}}},
	{"stress", []tableRow{{"stress.rate", "containers per second"}}},
	{"idle", []tableRow{{"idle.wakeups", "context switches a minute"}}},
	{"upgrade", upgradeRows()},
	{"size", []tableRow{{"size.shim", "MB"}}},
}, growthTables()...)

func lifeRows(metric string) (list []tableRow) {
	for _, phase := range []string{"create", "start", "exit", "delete", "total"} {
		list = append(list, tableRow{metric + "." + phase, phase + "; ms"})
	}
	return list
}

func memoryRows() (list []tableRow) {
	for _, n := range forms["full"].idle {
		for _, what := range []string{"private", "written", "pss", "rss"} {
			list = append(list, tableRow{fmt.Sprintf("memory-%d.%s", n, what), fmt.Sprintf("%d alone: %s of a shim; KiB", n, what)})
		}
		list = append(list, tableRow{fmt.Sprintf("memory-%d.threads", n), fmt.Sprintf("%d alone: threads of a shim", n)})
	}
	for _, n := range forms["full"].idle {
		list = append(list,
			tableRow{fmt.Sprintf("grouped-%d.each", n), fmt.Sprintf("%d in one: each after the first, written; KiB", n)},
			tableRow{fmt.Sprintf("grouped-%d.private", n), fmt.Sprintf("%d in one: private memory of the shim; KiB", n)},
			tableRow{fmt.Sprintf("grouped-%d.written", n), fmt.Sprintf("%d in one: of it, written; KiB", n)},
			tableRow{fmt.Sprintf("grouped-%d.threads", n), fmt.Sprintf("%d in one: threads of the shim", n)})
	}
	return list
}

func boundRows() (list []tableRow) {
	for _, how := range bounds {
		list = append(list, tableRow{how.metric + ".rate", how.what + "; MB/s"}, tableRow{how.metric + ".cpu", "CPU of both ends; s per GiB"})
	}
	return list
}

func upgradeRows() (list []tableRow) {
	for _, state := range []struct{ metric, what string }{{"upgrade-rest", "at rest"}, {"upgrade-load", "under load"}} {
		for _, part := range []struct{ metric, what string }{
			{"trial", "before: the new program is tried"}, {"slow-calls", "before: slow calls end"}, {"pause", "pause"},
			{"stop", "… everything stops"}, {"save", "… the state is written"}, {"exec", "… `execve`, and Go's start"},
			{"initialise", "… packages are initialised"}, {"restore", "… everything is restored"}, {"go-on", "… everything goes on"},
		} {
			list = append(list, tableRow{state.metric + "." + part.metric, state.what + ", " + part.what + "; ms"})
		}
	}
	return list
}

func growthTables() (list []table) {
	for metric, sizes := range map[string][]int{"growth-grouped": forms["full"].grouped, "growth-alone": forms["full"].alone} {
		t := table{name: metric}
		for _, n := range sizes {
			for _, what := range []struct{ metric, what string }{
				{"memory", "private memory each; KiB"}, {"state", "State; ms"}, {"stats", "Stats; ms"}, {"exec", "an exec through containerd; ms"},
			} {
				t.metrics = append(t.metrics, tableRow{fmt.Sprintf("%s-%d.%s", metric, n, what.metric), fmt.Sprintf("%d: %s", n, what.what)})
			}
		}
		list = append(list, t)
	}
	return list
}
