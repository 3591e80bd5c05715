package stdio

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// numbers is a script that writes lines of 100 bytes, numbered from 1 to $1.
const numbers = `exec awk -v n="$1" 'BEGIN { for (i = 1; i <= n; i++) printf "%099d\n", i }'`

// linesOf are n such lines.
func linesOf(n int) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "%099d\n", i)
	}
	return b.String()
}

// kept are the policies with which a process never waits.
var kept = []Policy{Spill, Drop}

// A container whose log nobody reads goes on. With stock it waits for ever once
// the pipe and the FIFO are full (containerd#9342, #11511).
func TestProcessNeverWaitsForAReaderUnderSpillAndDrop(t *testing.T) {
	const lines = 30_000 // 3 MB
	never := script(t, "#!/bin/sh\nexec 5>&-; until [ -e \"$2.go\" ]; do /bin/sleep 0.01; done; exec /bin/cat <&3 >\"$2.stdout\"")
	for _, policy := range kept {
		for _, terminal := range []bool{false, true} {
			for _, k := range []kind{fifo, binary} {
				t.Run(fmt.Sprintf("%s %s terminal=%t", policy, kindNames[k], terminal), func(t *testing.T) {
					leavesNothing(t)
					var said record
					o := options(t)
					o.Logs, o.Log, o.Direct = Logs{Policy: policy, Limit: 16 << 20}, said.log, true
					out := newSink(t, k, never, "out")
					s := opened(t, Spec{Stdout: out.uri, Terminal: terminal}, o)
					p := launch(t, s, numbers, "sh", fmt.Sprint(lines))
					p.ended()
					if status := p.cmd.ProcessState.ExitCode(); status != 0 {
						t.Errorf("the process ended with status %d", status)
					}
					eventually(t, "the output waits", func() bool { return s.State().Outputs[0].Waiting > lines*100/2 })
					drainsNever(t, s)
					if left, _ := os.ReadDir(o.Dir); len(left) != 0 {
						t.Errorf("%s can be seen in the folder", left)
					}
					got := make(chan string, 1)
					if k == fifo {
						client := reader(t, out.path)
						go func() { got <- <-all(client) }()
					} else {
						must(t, "let the logger read", os.WriteFile(out.path+".go", nil, 0o600))
					}
					must(t, "drain", s.Drain(bounded(t)))
					if k == binary {
						text, err := os.ReadFile(out.path + ".stdout")
						must(t, "read the log", err)
						got <- string(text)
					}
					if sha256.Sum256([]byte(receive(t, "the end of the output", got))) != sha256.Sum256([]byte(linesOf(lines))) {
						t.Error("it is not what was written")
					}
					if state := s.State().Outputs[0]; state.Waiting != 0 || state.Dropped != (Loss{}) {
						t.Errorf("the state says %+v", state)
					}
					must(t, "close", s.Close())
					for _, line := range said.all() {
						t.Errorf("said %q", line)
					}
				})
			}
		}
	}
}

var noticeLine = regexp.MustCompile(`\[cleat: (\d+) bytes in (\d+) lines of output dropped\]\n`)

// What there is no room for is the oldest, and nothing is lost in silence: every
// byte either comes or is in a notice in its place, and lines come whole.
func TestOverflowDropsTheOldestAndTellsHowMuch(t *testing.T) {
	const lines, limit = 20_000, 256 << 10
	for _, policy := range kept {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s terminal=%t", policy, terminal), func(t *testing.T) {
				leavesNothing(t)
				var said record
				o := options(t)
				o.Logs, o.Log = Logs{Policy: policy, Limit: limit}, said.log
				out := mkfifo(t, t.TempDir(), "out")
				s := opened(t, Spec{Stdout: out, Terminal: terminal}, o)
				launch(t, s, numbers, "sh", fmt.Sprint(lines)).ended()
				eventually(t, "all was taken", func() bool {
					state := s.State().Outputs[0]
					return state.Waiting <= limit+64<<10 && state.Waiting+state.Dropped.Bytes > lines*100-64<<10-100
				})
				got := receive(t, "the end of the output", all(reader(t, out)))
				came, dropped := 0, 0
				next := 1
				for _, line := range strings.SplitAfter(got, "\n") {
					if found := noticeLine.FindStringSubmatch(line); found != nil {
						var bytes, gone int
						fmt.Sscan(found[1], &bytes)
						fmt.Sscan(found[2], &gone)
						if bytes != gone*100 {
							t.Errorf("%d bytes in %d lines were dropped", bytes, gone)
						}
						dropped += gone
						next += gone
						continue
					}
					if line == "" {
						continue
					}
					if line != fmt.Sprintf("%099d\n", next) {
						t.Fatalf("line %q came where %d was next", line, next)
					}
					next++
					came++
				}
				if dropped == 0 || came+dropped != lines {
					t.Errorf("%d lines came and %d were dropped of %d", came, dropped, lines)
				}
				if state := s.State().Outputs[0]; state.Dropped.Lines != int64(dropped) || state.Dropped.Bytes != int64(dropped)*100 {
					t.Errorf("the state says %+v, the output %d lines", state, dropped)
				}
				if said.count("lines of output were dropped") == 0 {
					t.Errorf("said %q", said.all())
				}
				must(t, "close", s.Close())
			})
		}
	}
}

// What is kept and never taken is told of at the end, and not waited for longer.
func TestKeptOutputThatIsNeverTakenIsTold(t *testing.T) {
	for _, policy := range kept {
		t.Run(string(policy), func(t *testing.T) {
			leavesNothing(t)
			var said record
			o := options(t)
			o.Logs, o.Log = Logs{Policy: policy}, said.log
			s := opened(t, Spec{Stdout: mkfifo(t, t.TempDir(), "out")}, o)
			launch(t, s, numbers, "sh", "5000").ended()
			drainsNever(t, s)
			must(t, "close", s.Close())
			must(t, "settle", Settle(bounded(t)))
			if want := fmt.Sprintf("%d bytes of output are lost", 5000*100-64<<10); said.count(want) != 1 {
				t.Errorf("said %q, want %s", said.all(), want)
			}
		})
	}
}

// A full disk is no different from a reader that is away.
func TestOutputToAFullDiskIsKept(t *testing.T) {
	for _, policy := range kept {
		t.Run(string(policy), func(t *testing.T) {
			leavesNothing(t)
			disk := smallDisk(t, 64<<10)
			must(t, "fill the disk", os.WriteFile(disk+"/ballast", make([]byte, 64<<10), 0o600))
			o := options(t)
			o.Logs = Logs{Policy: policy}
			s := opened(t, Spec{Stdout: "file://" + disk + "/log"}, o)
			launch(t, s, numbers, "sh", "300").ended()
			must(t, "make room", os.Remove(disk+"/ballast"))
			must(t, "drain", s.Drain(bounded(t)))
			fileHolds(t, disk+"/log", linesOf(300))
			must(t, "close", s.Close())
		})
	}
}

// A disk that is too small for what is to be spilled takes what it can.
func TestSpillOnAFullDiskDropsTheOldest(t *testing.T) {
	leavesNothing(t)
	o := options(t)
	o.Logs = Logs{Policy: Spill, Dir: smallDisk(t, 64<<10)}
	out := mkfifo(t, t.TempDir(), "out")
	s := opened(t, Spec{Stdout: out}, o)
	launch(t, s, numbers, "sh", "5000").ended()
	eventually(t, "output is dropped", func() bool { return s.State().Outputs[0].Dropped.Lines > 0 })
	got := receive(t, "the end of the output", all(reader(t, out)))
	if !strings.HasSuffix(got, fmt.Sprintf("%099d\n", 5000)) || !noticeLine.MatchString(got) {
		t.Errorf("the output ends with %q", got[max(0, len(got)-200):])
	}
	must(t, "close", s.Close())
}

func TestPoliciesThatMakeNoSenseAreRefused(t *testing.T) {
	leavesNothing(t)
	for _, c := range []struct {
		logs  Logs
		says  string
		class error
	}{
		{Logs{Policy: "keep"}, `"keep" is not one of block, spill, drop`, errdefs.ErrInvalidArgument},
		{Logs{Policy: Block, Limit: 1 << 20}, "a limit says nothing", errdefs.ErrInvalidArgument},
		{Logs{Policy: Spill, Limit: 1}, "is not between", errdefs.ErrInvalidArgument},
		{Logs{Policy: Drop, Limit: 1 << 30}, "is not between", errdefs.ErrInvalidArgument},
		{Logs{Policy: Spill, Dir: "/no/such/folder"}, "/no/such/folder", errdefs.ErrNotFound},
	} {
		o := options(t)
		o.Logs = c.logs
		_, err := Open(bounded(t), Spec{Stdout: mkfifo(t, t.TempDir(), "out")}, o)
		if err == nil || !strings.Contains(err.Error(), c.says) || !is(err, c.class) {
			t.Errorf("%+v: error %v, want %q", c.logs, err, c.says)
		}
	}
}

func is(err, class error) bool {
	return errdefs.IsInvalidArgument(class) && errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(class) && errdefs.IsNotFound(err)
}

// A reader that is away for long costs nothing: no timer, no polling.
func TestWaitingOutputTakesNoTime(t *testing.T) {
	leavesNothing(t)
	for _, policy := range kept {
		o := options(t)
		o.Logs = Logs{Policy: policy}
		s := opened(t, Spec{Stdout: mkfifo(t, t.TempDir(), "out")}, o)
		launch(t, s, numbers+" </dev/null; exec sleep 1000", "sh", "5000")
		eventually(t, "the output waits", func() bool { return s.State().Outputs[0].Waiting == 5000*100-64<<10 })
		looks := &s.outputs[0].passer.(*relay).looks
		eventually(t, "a while in which it does not wake up", func() bool {
			before := looks.Load()
			<-time.After(100 * time.Millisecond)
			return looks.Load() == before
		})
		s.Close()
	}
}

// limited is a store that has room for so many bytes.
type limited struct {
	memory
	room int64
}

func (l limited) WriteAt(b []byte, at int64) (int, error) {
	n := max(min(int64(len(b)), l.room-at), 0)
	if m, err := l.memory.WriteAt(b[:n], at); err != nil || m == len(b) {
		return m, err
	}
	return int(n), unix.ENOSPC
}

// Whatever comes in and goes out: what is on the ring is the newest of what came
// in, without a gap, and what is not was counted.
func TestRingKeepsTheNewestInOrder(t *testing.T) {
	file, err := newSpill(t.TempDir())
	must(t, "make a spill", err)
	defer file.Close()
	for name, s := range map[string]store{"memory": memory{}, "file": file, "full": limited{memory{}, 100_000}, "nothing": limited{memory{}, 0}} {
		t.Run(name, func(t *testing.T) {
			const limit = 300_000
			random := rand.New(rand.NewPCG(1, 2))
			k := newRing(s, limit)
			var model []byte
			buf := make([]byte, 64<<10)
			for range 3000 {
				if random.IntN(2) == 0 {
					b := make([]byte, random.IntN(50_000))
					for i := range b {
						b[i] = "0123456789\n"[random.IntN(11)]
					}
					model = append(model, b...)
					lost := k.append(b)
					if lines := int64(bytes.Count(model[:lost.Bytes], []byte{'\n'})); lines != lost.Lines {
						t.Fatalf("%d lines of %d were counted", lost.Lines, lines)
					}
					model = model[lost.Bytes:]
				} else {
					b, err := k.peek(buf[:random.IntN(len(buf))])
					must(t, "peek", err)
					if !bytes.HasPrefix(model, b) {
						t.Fatal("it is not what came next")
					}
					if n := random.IntN(len(b) + 1); n > 0 {
						k.discard(int64(n))
						model = model[n:]
					}
				}
				if int64(len(model)) != k.size || k.size > limit {
					t.Fatalf("%d bytes are kept, %d should be", k.size, len(model))
				}
			}
		})
	}
}

// Output that waits is not in memory when it is spilled.
func TestSpilledOutputIsNotInMemory(t *testing.T) {
	leavesNothing(t)
	const size = 64 << 20
	o := options(t)
	o.Logs = Logs{Policy: Spill, Limit: 2 * size}
	out := mkfifo(t, t.TempDir(), "out")
	s := opened(t, Spec{Stdout: out}, o)
	before := residentKiB(t)
	launch(t, s, `exec head -c "$1" /dev/zero`, "sh", fmt.Sprint(size)).ended()
	eventually(t, "all was taken", func() bool { return s.State().Outputs[0].Waiting == size-64<<10 })
	if grown := residentKiB(t) - before; grown > 16<<10 {
		t.Errorf("the shim has grown by %d KiB for %d KiB of output", grown, size>>10)
	}
	n, err := io.Copy(io.Discard, reader(t, out))
	if err != nil || n != size {
		t.Errorf("%d bytes came of %d, error %v", n, size, err)
	}
	must(t, "close", s.Close())
}

func residentKiB(t *testing.T) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(t, "read status", err)
	_, after, _ := strings.Cut(string(text), "RssAnon:")
	fmt.Sscan(after, &kib)
	return kib
}
