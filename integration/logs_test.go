package integration

// Containers that write while nobody takes what they write, and logs that the
// shim writes itself.

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/cleatrun/cleat/integration/daemon"
)

// much is how many MB the containers write.
func much() int { return fewer(100) }

// little is how many they write through a terminal, which takes each byte by itself.
const little = 2

// writes is a command that writes so many MB, in lines of 10 bytes, and ends
// with status 5.
func writes(megabytes int) []string {
	return []string{"sh", "-c", fmt.Sprintf("yes 123456789 | head -n %d && exit 5", megabytes*100_000)}
}

// written is the hash of what writes writes, with that end of lines.
func written(megabytes int, end string) string {
	h := sha256.New()
	lines := []byte(strings.Repeat("123456789"+end, 1000))
	for range megabytes * 100 {
		h.Write(lines)
	}
	return sum(h)
}

func sum(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }

// logsPolicy has the shim do so with output that nobody takes.
func logsPolicy(policy, limit string) oci.SpecOpts {
	return oci.WithAnnotations(map[string]string{"io.containerd.cleat.logs": policy, "io.containerd.cleat.logs-limit": limit})
}

// unread runs a container whose client does not read its output, waits for its
// end, and returns the client's end.
func unread(t *testing.T, d *daemon.Daemon, id string, megabytes int, terminal bool, spec ...oci.SpecOpts) (*box, *os.File) {
	t.Helper()
	errors := "" // that there are none, stock cannot do without a terminal
	if terminal {
		spec = append(spec, oci.WithTTY)
	} else {
		errors = newTap(t).path
	}
	out := newFIFO(t)
	client, err := os.OpenFile(out.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	b := newBox(t, d, id, writes(megabytes), spec...).create(fifos("", out.path, errors, terminal))
	ended := b.wait(b.task)
	if err := b.task.Start(b.ctx); err != nil {
		t.Fatal(err)
	}
	if code := ended(); code != 5 {
		t.Errorf("the container ended with %d, want 5", code)
	}
	return b, client
}

// A container writes 100 MB that nobody reads: it goes on and ends, and all of it
// comes when somebody reads. Stock fails: its container stands still after 128
// KiB (containerd#9342, #11511).
func TestOutputThatNobodyReadsIsSpilledAndComes(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	for _, terminal := range []bool{false, true} {
		megabytes, end := much(), "\n"
		if terminal {
			megabytes, end = little, "\r\n"
		}
		b, client := unread(t, d, fmt.Sprintf("spill-%t", terminal), megabytes, terminal, logsPolicy("spill", "256m"))
		h := sha256.New()
		if _, err := io.Copy(h, client); err != nil {
			t.Fatal(err)
		}
		if sum(h) != written(megabytes, end) {
			t.Errorf("terminal=%t: it is not what was written", terminal)
		}
		b.delete()
		nothingLeftOf(t, d, b.ID())
	}
}

// With drop the newest comes, and every line that does not is counted in a
// notice. Stock fails as above.
func TestOutputThatNobodyReadsIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b, client := unread(t, d, "drop", much(), false, logsPolicy("drop", "1m"))
	came, dropped := 0, 0
	for lines := bufio.NewScanner(client); lines.Scan(); {
		var bytes, gone int
		switch n, _ := fmt.Sscanf(lines.Text(), "[cleat: %d bytes in %d lines of output dropped]", &bytes, &gone); {
		case n == 2 && bytes == 10*gone:
			dropped += gone
		case lines.Text() == "123456789":
			came++
		default:
			t.Fatalf("line %q", lines.Text())
		}
	}
	if came+dropped != much()*100_000 || came > 200_000 {
		t.Errorf("%d lines came and %d were dropped of %d", came, dropped, much()*100_000)
	}
	b.delete()
	nothingLeftOf(t, d, b.ID())
}

// What is spilled when the container is deleted is not waited for longer than the
// drain limit, and nothing of it stays.
func TestSpilledOutputThatNobodyWantsHoldsNothingUp(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	b, client := unread(t, d, "unwanted", much(), false, logsPolicy("spill", "256m"))
	client.Close()
	b.delete()
	nothingLeftOf(t, d, b.ID())
}

// The shim writes and rotates a container's log in kubelet's and in Docker's
// format. Stock fails: it takes no parameters.
func TestLogFilesAreRotatedByTheShim(t *testing.T) {
	t.Parallel()
	d := sharedDaemon(t)
	for _, format := range []string{"raw", "cri", "json"} {
		log := filepath.Join(t.TempDir(), "log")
		uri := "file://" + log + "?max-size=64k&max-files=100&format=" + format
		command := "seq 1 30000"
		if format != "raw" { // the bytes of two streams come as they come
			command += "; echo err >&2"
		}
		b := newBox(t, d, "rotated-"+format, []string{"sh", "-c", command}).create(fifos("", uri, uri, false))
		ended := b.wait(b.task)
		if err := b.task.Start(b.ctx); err != nil {
			t.Fatal(err)
		}
		ended()
		b.delete()
		next, errs, files := 1, 0, 0
		for n := 99; n >= 0; n-- {
			name := log
			if n > 0 {
				name = fmt.Sprint(log, ".", n)
			}
			text, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			if files++; len(text) > 64<<10+100 {
				t.Errorf("%s has %d bytes", name, len(text))
			}
			for line := range strings.Lines(string(text)) {
				switch logged(t, format, line) {
				case fmt.Sprint(next):
					next++
				case "err":
					errs++
				default:
					t.Fatalf("%s: line %q where %d was next", format, line, next)
				}
			}
		}
		if next != 30001 || (errs == 1) != (format != "raw") || files < 2 {
			t.Errorf("%s: %d is the next line, %d errors, in %d files", format, next, errs, files)
		}
	}
}

// logged is the line of a record.
func logged(t *testing.T, format, record string) string {
	t.Helper()
	record = strings.TrimSuffix(record, "\n")
	switch format {
	case "cri":
		fields := strings.SplitN(record, " ", 4)
		if len(fields) == 4 && fields[2] == "F" {
			return fields[3]
		}
	case "json":
		var r struct{ Log, Stream, Time string }
		if err := json.Unmarshal([]byte(record), &r); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(r.Log, "\n")
	case "raw":
		return record
	}
	return ""
}
