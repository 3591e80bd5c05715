package stdio

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A pump can be frozen between any two of its steps, and goes on from what it is
// then: nothing is only in its goroutine.
func TestFrozenPumpGoesOnAsIfNothingHadBeen(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	written := noise(2 << 20)
	must(t, "write data", os.WriteFile(data, written, 0o600))
	for _, logs := range []Logs{{}, {Policy: Spill}, {Policy: Drop, Limit: 4 << 20}} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s terminal=%t", logs.Policy, terminal), func(t *testing.T) {
				leavesNothing(t)
				out := mkfifo(t, t.TempDir(), "out")
				o := options(t)
				o.Logs = logs
				s := opened(t, Spec{Stdout: out, Terminal: terminal}, o)
				client := reader(t, out)
				sum := make(chan [32]byte, 1)
				go func() {
					h := sha256.New()
					io.Copy(h, client)
					sum <- [32]byte(h.Sum(nil))
				}()
				p := launch(t, s, `exec cat "$1"`, "sh", data)
				for frozen := 0; ; frozen++ {
					s.outputs[0].freeze()
					select {
					case <-s.outputs[0].done:
						if got := receive(t, "the end of the output", sum); got != sha256.Sum256(written) {
							t.Errorf("after %d freezes it is not what was written", frozen)
						}
						p.ended()
						must(t, "close", s.Close())
						return
					default:
						s.outputs[0].start()
					}
				}
			})
		}
	}
}
