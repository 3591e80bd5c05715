package stdio

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// inputTest is a process that copies its input to its output, by pipes or in a
// terminal that takes lines and does not echo.
type inputTest struct {
	t        *testing.T
	in       string
	out      *os.File
	streams  *Streams
	terminal bool
	proc     *proc
}

// onPipesAndTerminals runs a story on both.
func onPipesAndTerminals(t *testing.T, story func(i *inputTest)) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			i := &inputTest{t: t, in: mkfifo(t, dir, "in"), terminal: terminal}
			out := mkfifo(t, dir, "out")
			i.streams = opened(t, Spec{Stdin: i.in, Stdout: out, Terminal: terminal}, options(t))
			i.out = reader(t, out)
			i.proc = shell(t, i.streams, "cat; echo end")
			i.proc.quiet = true
			i.proc.launch()
			story(i)
			i.streams.Close()
		})
	}
}

func (i *inputTest) open() {
	i.t.Helper()
	must(i.t, "open stdin", i.streams.OpenStdin())
}

func (i *inputTest) closeIO() {
	i.t.Helper()
	must(i.t, "close stdin", i.streams.CloseStdin())
}

// types writes a line that must come out.
func (i *inputTest) types(client *os.File, line string) {
	i.t.Helper()
	if _, err := client.WriteString(line + "\n"); err != nil {
		i.t.Fatal(err)
	}
	next(i.t, i.out, line+"\n")
}

// ends expects that the process has seen the end of its input.
func (i *inputTest) ends() {
	i.t.Helper()
	next(i.t, i.out, "end\n")
	i.proc.ended()
}

// A client may go and come back (kubectl attach, docker attach) as often as it
// likes: without a hold on the FIFO the first that goes would end a shell.
func TestClientThatDetachesDoesNotEndTheInput(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.open()
		for n := range 3 {
			client := writer(i.t, i.in)
			i.types(client, fmt.Sprintf("attached %d", n))
			client.Close()
		}
		client := writer(i.t, i.in)
		i.closeIO()
		i.types(client, "closed, but the client is still there")
		client.Close()
		i.ends()
	})
}

func TestCloseStdinWhileTheClientIsAwayEndsTheInput(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.open()
		client := writer(i.t, i.in)
		i.types(client, "here")
		client.Close()
		i.closeIO()
		i.ends()
	})
}

// The FIFO is opened when the process is about to run, and not before: the
// client learns from that that it can write, and a short input may be at its
// end before the client knows the process that it would close the input of.
func TestInputIsOpenedWhenTheProcessIsAboutToRun(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		if _, err := os.OpenFile(i.in, os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.ENXIO) {
			i.t.Errorf("opening the client's end: %v, want %v", err, unix.ENXIO)
		}
		i.open()
		client := writer(i.t, i.in)
		i.types(client, "now")
		i.closeIO()
		client.Close()
		i.ends()
	})
}

// CloseIO can come before Start: what the client has to say is not lost, and
// its end is the input's.
func TestCloseStdinBeforeTheInputIsOpen(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.closeIO()
		// As containerd's client does it: open waits for the shim.
		opened := make(chan *os.File, 1)
		entering := make(chan struct{})
		go func() {
			close(entering)
			f, err := os.OpenFile(i.in, os.O_WRONLY, 0)
			if err != nil {
				i.t.Error(err)
			}
			opened <- f
		}()
		<-entering
		eventually(i.t, "the client waits in open", func() bool { return waitsForFIFO(i.t) })
		i.open()
		client := receive(i.t, "the client's end", opened)
		i.types(client, "early")
		client.Close()
		i.ends()
	})
}

// waitsForFIFO tells whether a thread of the test waits in open(2) for the
// other side of a FIFO.
func waitsForFIFO(t *testing.T) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/wchan")
	must(t, "list threads", err)
	for _, thread := range threads {
		if where, _ := os.ReadFile(thread); bytes.HasPrefix(where, []byte("wait_for_partner")) {
			return true
		}
	}
	return false
}

// A client that has closed the input and is gone will not come: the process
// must not wait for it.
func TestCloseStdinBeforeTheInputIsOpenAndNoClient(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.closeIO()
		i.open()
		i.ends()
	})
}

func TestClientOfAnEndedProcessIsToldSo(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.open()
		client := writer(i.t, i.in)
		i.types(client, "hello")
		i.proc.cmd.Process.Kill()
		i.proc.ended()
		eventually(i.t, "an error for the client", func() bool {
			_, err := client.WriteString("nobody\n")
			return errors.Is(err, unix.EPIPE)
		})
	})
}

// Nothing is read for a process before it is there, nor after.
func TestInputOpenedAfterTheEndIsNotRead(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.proc.cmd.Process.Kill()
		i.proc.ended()
		i.open()
		if _, err := os.OpenFile(i.in, os.O_WRONLY|unix.O_NONBLOCK, 0); !errors.Is(err, unix.ENXIO) {
			i.t.Errorf("opening the client's end: %v, want %v", err, unix.ENXIO)
		}
	})
}

// noise is what no line discipline and no text handling leaves as it is.
func noise(size int) []byte {
	b := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	random.Read(b)
	return b
}

func TestMuchInputArrivesAsItWasSent(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			dir := t.TempDir()
			size := 8 << 20
			if terminal {
				size = 1 << 20 // a pty takes 4 KiB at a time
			}
			sent := noise(size)
			in, out := mkfifo(t, dir, "in"), filepath.Join(dir, "copy")
			s := opened(t, Spec{Stdin: in, Terminal: terminal}, options(t))
			p := shell(t, s, `exec head -c "$1" >"$2"`, "sh", fmt.Sprint(size), out)
			p.quiet, p.raw = true, true
			p.launch()
			must(t, "open stdin", s.OpenStdin())
			client := writer(t, in)
			go func() {
				client.Write(sent)
				client.Close()
			}()
			p.ended()
			got, err := os.ReadFile(out)
			must(t, "read copy", err)
			if sha256.Sum256(got) != sha256.Sum256(sent) {
				t.Errorf("%d bytes came of %d, or not the same ones", len(got), len(sent))
			}
			s.Close()
		})
	}
}

// A process that does not read holds up its client, and nothing else.
func TestProcessThatDoesNotReadHoldsUpNothingElse(t *testing.T) {
	onPipesAndTerminals(t, func(i *inputTest) {
		i.proc.cmd.Process.Signal(unix.SIGSTOP)
		i.open()
		client := writer(i.t, i.in)
		written := make(chan error, 1)
		go func() {
			_, err := client.Write(noise(8 << 20))
			written <- err
		}()
		must(i.t, "close stdin", i.streams.CloseStdin())
		i.proc.cmd.Process.Kill()
		i.proc.ended()
		must(i.t, "close", i.streams.Close())
		if err := receive(i.t, "the client's error", written); !errors.Is(err, unix.EPIPE) {
			i.t.Errorf("writing to nobody: %v", err)
		}
	})
}
