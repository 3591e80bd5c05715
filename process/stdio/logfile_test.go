package stdio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// chain is a log with those that were rotated, the newest first.
func chain(t *testing.T, path string) (files []string) {
	t.Helper()
	for n := 0; ; n++ {
		name := path
		if n > 0 {
			name += fmt.Sprint(".", n)
		}
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			return files
		}
		must(t, "read log", err)
		files = append(files, string(text))
	}
}

// oldestFirst is what a chain holds.
func oldestFirst(files []string) string {
	var b strings.Builder
	for i := len(files) - 1; i >= 0; i-- {
		b.WriteString(files[i])
	}
	return b.String()
}

// No byte is lost by a rotation, no line is in two files, and no file is larger
// than it may be, but for the end of a line that was begun.
func TestFilesAreRotatedAtTheEndsOfLines(t *testing.T) {
	const lines = 2000 // 200 KB
	for _, policy := range []Policy{Block, Spill, Drop} {
		for _, terminal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s terminal=%t", policy, terminal), func(t *testing.T) {
				leavesNothing(t)
				log := filepath.Join(t.TempDir(), "log")
				o := options(t)
				o.Logs.Policy = policy
				s := opened(t, Spec{Stdout: "file://" + log + "?max-size=32k&max-files=50", Terminal: terminal}, o)
				launch(t, s, numbers, "sh", fmt.Sprint(lines)).ended()
				must(t, "drain", s.Drain(bounded(t)))
				files := chain(t, log)
				if oldestFirst(files) != linesOf(lines) {
					t.Error("it is not what was written")
				}
				if len(files) < lines*100/(32<<10) {
					t.Errorf("there are %d files", len(files))
				}
				for i, text := range files {
					if len(text) > 32<<10+100 || !strings.HasSuffix(text, "\n") || i > 0 && len(text) < 31<<10 {
						t.Errorf("file %d has %d bytes, and ends with %q", i, len(text), text[max(0, len(text)-10):])
					}
				}
				must(t, "close", s.Close())
			})
		}
	}
}

func TestNoMoreFilesAreKeptThanWereAskedFor(t *testing.T) {
	for files, want := range map[string]int{"": usualFiles, "&max-files=1": 1, "&max-files=3": 3} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			leavesNothing(t)
			log := filepath.Join(t.TempDir(), "log")
			s := opened(t, Spec{Stdout: "file://" + log + "?max-size=4k" + files}, options(t))
			launch(t, s, numbers, "sh", "1000").ended()
			must(t, "drain", s.Drain(bounded(t)))
			got := chain(t, log)
			if left, _ := os.ReadDir(filepath.Dir(log)); len(got) != want || len(left) != want {
				t.Errorf("there are %d files, and %d in the folder, want %d", len(got), len(left), want)
			}
			if !strings.HasSuffix(linesOf(1000), oldestFirst(got)) {
				t.Error("they are not the end of what was written")
			}
			must(t, "close", s.Close())
		})
	}
}

// A line longer than a file may be does not make it grow without bound.
func TestLineThatNeverEndsIsCut(t *testing.T) {
	leavesNothing(t)
	log := filepath.Join(t.TempDir(), "log")
	s := opened(t, Spec{Stdout: "file://" + log + "?max-size=8k&max-files=100"}, options(t))
	launch(t, s, `head -c 1000000 /dev/zero | tr '\0' x`).ended()
	must(t, "drain", s.Drain(bounded(t)))
	files := chain(t, log)
	if oldestFirst(files) != strings.Repeat("x", 1000000) {
		t.Error("it is not what was written")
	}
	for i, text := range files {
		if len(text) > 8<<10+lineSlack {
			t.Errorf("file %d has %d bytes", i, len(text))
		}
	}
	must(t, "close", s.Close())
}

// Both streams may go to one file, or to one each.
func TestStreamsThatShareAFileAreRotatedTogether(t *testing.T) {
	const each = 1000
	script := `i=1; while [ $i -le 1000 ]; do printf 'o%098d\n' $i; printf 'e%098d\n' $i >&2; i=$((i + 1)); done`
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprintf("shared=%t", shared), func(t *testing.T) {
			leavesNothing(t)
			out := filepath.Join(t.TempDir(), "out")
			errs := out
			if !shared {
				errs = filepath.Join(filepath.Dir(out), "err")
			}
			const how = "?max-size=16k&max-files=100"
			s := opened(t, Spec{Stdout: "file://" + out + how, Stderr: "file://" + errs + how}, options(t))
			launch(t, s, script).ended()
			must(t, "drain", s.Drain(bounded(t)))
			next := map[byte]int{'o': 1, 'e': 1}
			for path := range map[string]bool{out: true, errs: true} {
				files := chain(t, path)
				for _, text := range files {
					if len(text) > 16<<10+100 {
						t.Errorf("a file has %d bytes", len(text))
					}
				}
				for line := range strings.Lines(oldestFirst(files)) {
					if want := fmt.Sprintf("%c%098d\n", line[0], next[line[0]]); line != want {
						t.Fatalf("line %q, want %q", line, want)
					}
					next[line[0]]++
				}
			}
			if next['o'] != each+1 || next['e'] != each+1 {
				t.Errorf("%v are the next lines", next)
			}
			must(t, "close", s.Close())
		})
	}
}

// Others rotate, delete and cut files, too.
func TestFileThatOthersTouchIsGoneOnWith(t *testing.T) {
	for _, how := range []string{"", "?max-size=32k&max-files=9"} {
		for name, touch := range map[string]func(log string) error{
			"deleted": os.Remove,
			"moved":   func(log string) error { return os.Rename(log, log+".old") },
			"cut":     func(log string) error { return os.Truncate(log, 0) },
			"replaced": func(log string) error {
				return errors.Join(os.WriteFile(log+".new", nil, 0o600), os.Rename(log+".new", log))
			},
			"deleted with its folder": func(log string) error { return os.RemoveAll(filepath.Dir(log)) },
		} {
			t.Run(name+how, func(t *testing.T) {
				leavesNothing(t)
				dir := t.TempDir()
				log := filepath.Join(dir, "folder", "log")
				s := opened(t, Spec{Stdout: "file://" + log + how}, options(t))
				p := launch(t, s, untilThere+`echo before; there "$1"; echo after`, "sh", dir+"/go")
				fileHolds(t, log, "before\n")
				must(t, name, touch(log))
				p.signal(dir + "/go")
				p.ended()
				must(t, "drain", s.Drain(bounded(t)))
				fileHolds(t, log, "after\n")
				must(t, "close", s.Close())
			})
		}
	}
}

// A path that has become something else is an error that is tried again.
func TestFileThatHasBecomeAFIFOIsNotWrittenTo(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	var said record
	o := options(t)
	o.Log = said.log
	s := opened(t, Spec{Stdout: "file://" + dir + "/log"}, o)
	p := launch(t, s, untilThere+`there "$1"; echo hello`, "sh", dir+"/go")
	must(t, "delete", os.Remove(dir+"/log"))
	mkfifo(t, dir, "log")
	hold, err := os.OpenFile(dir+"/log", os.O_RDWR, 0)
	must(t, "open FIFO", err)
	defer hold.Close()
	p.signal(dir + "/go")
	p.ended()
	eventually(t, "a word", func() bool { return said.count("it is not a file") == 1 })
	must(t, "delete", os.Remove(dir+"/log"))
	must(t, "drain", s.Drain(bounded(t)))
	fileHolds(t, dir+"/log", "hello\n")
	must(t, "close", s.Close())
}

func TestParametersOfFiles(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	for query, says := range map[string]string{
		"max-size=":                   `"" is not a size`,
		"max-size=-1":                 `"-1" is not a size`,
		"max-size=ten":                `"ten" is not a size`,
		"max-size=1k":                 "less than 4096 bytes",
		"max-size=10m&max-files=0":    `"0", not a number from 1 to 1000`,
		"max-size=10m&max-files=many": `"many", not a number`,
		"max-files=3":                 "says nothing without max-size",
		"max-size=10m&max-size=20m":   "is there twice",
		"format=xml":                  `"xml", not one of raw, cri, json`,
		"format":                      `"", not one of`,
		"max-file=3":                  `"max-file" is not known, max-size, max-files and format are`,
		"max-size=10m&compress=true":  `"compress" is not known`,
		"max-size=10m;max-files=3":    "semicolon",
		"max-size=%zz":                "invalid URL escape",
	} {
		for _, terminal := range []bool{false, true} {
			_, err := Open(bounded(t), Spec{Stdout: "file://" + dir + "/log?" + query, Terminal: terminal}, options(t))
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "stdout") {
				t.Errorf("%s: error %v, want %q", query, err, says)
			}
		}
	}
	if _, err := Open(bounded(t), Spec{Stdout: "file://" + dir + "/log?format=cri", Stderr: "file://" + dir + "/log"}, options(t)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "other parameters") {
		t.Errorf("one file in two formats: %v", err)
	}
	if _, err := Open(bounded(t), Spec{Stdout: "file:///dev/null?max-size=10m"}, options(t)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device that is to be rotated: %v", err)
	}
}

// What kubelet reads (pkg/kubelet/kuberuntime/logs): a time, the stream, whether
// the line ends, and the line.
func TestCRIFormatIsKubelets(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		t.Run(fmt.Sprintf("terminal=%t", terminal), func(t *testing.T) {
			leavesNothing(t)
			log := filepath.Join(t.TempDir(), "log")
			uri := "file://" + log + "?format=cri&max-size=10m"
			s := opened(t, Spec{Stdout: uri, Stderr: uri, Terminal: terminal}, options(t))
			before := time.Now()
			launch(t, s, `printf 'one\n\r\n\ntwo\r\n'; head -c 20000 /dev/zero | tr '\0' x; printf '\nno end'`).ended()
			must(t, "drain", s.Drain(bounded(t)))
			text, err := os.ReadFile(log)
			must(t, "read log", err)
			want := []string{"F one", "F ", "F ", "F two", "P " + strings.Repeat("x", 16384), "F " + strings.Repeat("x", 20000-16384), "P no end"}
			lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			if len(lines) != len(want) {
				t.Fatalf("%d records: %.300q", len(lines), text)
			}
			for i, line := range lines {
				when, rest, _ := strings.Cut(line, " ")
				at, err := time.Parse("2006-01-02T15:04:05.999999999Z07:00", when)
				if err != nil || at.Before(before) || at.After(time.Now()) {
					t.Errorf("time %q: %v", when, err)
				}
				if rest != "stdout "+want[i] {
					t.Errorf("record %d is %.40q, want %.40q", i, rest, want[i])
				}
			}
			must(t, "close", s.Close())
		})
	}
}

func TestCRIFormatTellsTheStreams(t *testing.T) {
	leavesNothing(t)
	log := filepath.Join(t.TempDir(), "log")
	uri := "file://" + log + "?format=cri"
	s := opened(t, Spec{Stdout: uri, Stderr: uri}, options(t))
	launch(t, s, `echo out; echo err >&2`).ended()
	must(t, "drain", s.Drain(bounded(t)))
	text, err := os.ReadFile(log)
	must(t, "read log", err)
	if !strings.Contains(string(text), " stdout F out\n") || !strings.Contains(string(text), " stderr F err\n") {
		t.Errorf("the log is %q", text)
	}
	must(t, "close", s.Close())
}

// Docker's: the fields in their order, a line with its end, a part of one
// without, and for all parts of a line one time.
func TestJSONFormatIsDockers(t *testing.T) {
	e := newEncoder(jsonFile, "stderr")
	at := func(second int) time.Time { return time.Date(2026, 1, 2, 3, 4, second, 5, time.FixedZone("", 3600)) }
	var got bytes.Buffer
	got.Write(e.encode([]byte("a\"\\<&>\t\r\x01\xff é \u2028\nheld"), at(1)))
	got.Write(e.encode([]byte(" on\n"+strings.Repeat("x", recordMax+3)), at(2)))
	got.Write(e.encode([]byte("y\nno end"), at(3)))
	got.Write(e.end(at(4)))
	const head, tail = `","stream":"stderr","time":"2026-01-02T02:04:0`, ".000000005Z\"}\n"
	want := `{"log":"a\"\\\u003c\u0026\u003e\u0009\r\u0001\ufffd é \u2028\n` + head + "1" + tail +
		`{"log":"held on\n` + head + "2" + tail +
		`{"log":"` + strings.Repeat("x", recordMax) + head + "2" + tail +
		`{"log":"xxxy\n` + head + "2" + tail +
		`{"log":"no end` + head + "4" + tail
	if got.String() != want {
		t.Errorf("got\n%.200s\nwant\n%.200s", got.String(), want)
	}
}

// Any bytes make records that any reader of JSON takes, and that are the lines
// together.
func FuzzEncoders(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\xff\u2028"), uint16(3))
	f.Add(bytes.Repeat([]byte("x"), 2*recordMax+1), uint16(recordMax-1))
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		at := min(int(cut), len(text))
		j, c := newEncoder(jsonFile, "stdout"), newEncoder(cri, "stdout")
		var out, records bytes.Buffer
		for _, part := range [][]byte{text[:at], text[at:]} {
			out.Write(j.encode(part, time.Now()))
			records.Write(c.encode(part, time.Now()))
		}
		out.Write(j.end(time.Now()))
		records.Write(c.end(time.Now()))
		var got strings.Builder
		for d := json.NewDecoder(&out); ; {
			var record struct{ Log, Stream, Time string }
			if err := d.Decode(&record); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if record.Stream != "stdout" || record.Time == "" || len(record.Log) > 3*(recordMax+1) {
				t.Errorf("record %+.100v", record)
			}
			got.WriteString(record.Log)
		}
		if len(text) <= recordMax && got.String() != strings.ToValidUTF8(string(text), "\ufffd") && !bytes.Contains(text, []byte{0xff}) {
			// A part of several bad bytes is one U+FFFD for ToValidUTF8, one each for Docker.
			if strings.ReplaceAll(got.String(), "\ufffd", "") != strings.ReplaceAll(strings.ToValidUTF8(string(text), ""), "\ufffd", "") {
				t.Errorf("%q became %q", text, got.String())
			}
		}
		var lines strings.Builder
		for line := range strings.Lines(records.String()) {
			fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
			if len(fields) != 4 || fields[2] != "F" && fields[2] != "P" || len(fields[3]) > recordMax {
				t.Fatalf("record %.100q", line)
			}
			lines.WriteString(fields[3])
			if fields[2] == "F" {
				lines.WriteString("\n")
			}
		}
		if strings.ReplaceAll(lines.String(), "\r", "") != strings.ReplaceAll(string(text), "\r", "") {
			t.Errorf("%q became %q", text, lines.String())
		}
	})
}

// What was dropped is told in the format of the log.
func TestNoticeIsARecordOfTheLog(t *testing.T) {
	leavesNothing(t)
	disk := smallDisk(t, 512<<10)
	must(t, "fill the disk", os.WriteFile(disk+"/ballast", make([]byte, 508<<10), 0o600))
	o := options(t)
	o.Logs = Logs{Policy: Drop, Limit: minKept}
	s := opened(t, Spec{Stdout: "file://" + disk + "/log?format=json"}, o)
	launch(t, s, numbers, "sh", "3000").ended()
	eventually(t, "output is dropped", func() bool { return s.State().Outputs[0].Dropped.Lines > 0 })
	must(t, "make room", os.Truncate(disk+"/ballast", 0))
	drain := s.Drain(bounded(t))
	text, err := os.ReadFile(disk + "/log")
	must(t, "read log", err)
	if drain != nil || !strings.Contains(string(text), `{"log":"[cleat: `) {
		t.Errorf("drain %v, the log is %.500q", drain, text)
	}
	for line := range strings.Lines(string(text)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("record %q", line)
		}
	}
	must(t, "close", s.Close())
}
