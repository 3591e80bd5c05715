package bootstrap

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cleatrun/cleat/shim/bootstrap/internal/built"
)

// BenchmarkStart is the whole action, as containerd runs it, without and with a
// configuration file. Besides the time it tells the CPU time of the process.
func BenchmarkStart(b *testing.B) {
	for _, file := range []string{"", "[runtimes.crun]\npath = '/usr/bin/crun'\n"} {
		name := "no file"
		if file != "" {
			name = "file"
		}
		b.Run(name, func(b *testing.B) {
			n := newNode(b)
			n.shim = built.Shim(b)
			if file != "" {
				path := filepath.Join(filepath.Dir(n.root), "config.toml")
				n.write(path, file)
				n.env = append(n.env, "CLEAT_CONFIG="+path)
			}
			var cpu int64
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				id := fmt.Sprint("c", i)
				n.bundle(id, nil)
				cmd, stdin := n.command(id, "start"), n.marshal(n.params(id))
				b.StartTimer()
				if output, status := n.run(cmd, stdin); status != 0 {
					b.Fatal(output)
				}
				b.StopTimer()
				cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()
				for _, pid := range n.processes() {
					syscall.Kill(pid, syscall.SIGKILL)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/1000, "cpu-ms/op")
		})
	}
}
