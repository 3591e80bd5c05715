package driver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatrun/cleat/oci"
)

const dumped = `(00.000001) Version: 4.1
(00.041223) Error (criu/sk-inet.c:191): inet: Connected TCP socket
(00.041999) Error (criu/cr-dump.c:2053): Dumping FAILED.
(00.042000) done
`

// runc says no more than that CRIU has failed; why is in a log in a folder that
// is removed.
func TestFailureOfCRIUIsTold(t *testing.T) {
	for _, c := range []struct {
		call, log, kept string
	}{
		{"checkpoint", "dump.log", "criu-dump.log"},
		{"restore", "restore.log", "criu-restore.log"},
	} {
		script := `
cp "$0.criu" "$work/` + c.log + `" 2>/dev/null
echo '{"level":"error","msg":"criu failed: type DUMP errno 0"}' >>"$log"
exit 1`
		for name, story := range map[string]struct {
			log  string
			want string // behind the runtime's words; @ is the kept log
		}{
			"the last error":   {dumped, ": (00.041999) Error (criu/cr-dump.c:2053): Dumping FAILED. (CRIU's log is in @)"},
			"without an error": {"(00.000001) Version: 4.1\n", ": CRIU's log is in @"},
			"rubbish":          {"\x00\xff Error\n", ": CRIU's log is in @"},
			"an empty log":     {"", ": CRIU's log is in @"},
			"a huge log":       {strings.Repeat("(00.000001) Error (early.c:1)\n", 1<<17) + dumped, ": (00.041999) Error (criu/cr-dump.c:2053): Dumping FAILED. (CRIU's log is in @)"},
		} {
			t.Run(c.call+"/"+name, func(t *testing.T) {
				s := newScripted(t, script)
				write(t, s.path+".criu", story.log)
				e := failure(t, s.calls(t)[c.call]())
				kept := s.bundle.Path(c.kept)
				if want := "criu failed: type DUMP errno 0" + strings.ReplaceAll(story.want, "@", kept); e.Message != want {
					t.Errorf("%q, want %q", e.Message, want)
				}
				b, err := os.ReadFile(kept)
				if err != nil || !strings.HasSuffix(story.log, string(b)) || len(b) > maxKeptLog || len(b) < min(len(story.log), maxKeptLog) {
					t.Errorf("%d bytes of the log are kept, %v", len(b), err)
				}
				os.Remove(kept)
			})
		}
		t.Run(c.call+"/no log", func(t *testing.T) {
			s := newScripted(t, script)
			if e := failure(t, s.calls(t)[c.call]()); e.Message != "criu failed: type DUMP errno 0" {
				t.Errorf("%q", e.Message)
			}
		})
		t.Run(c.call+"/a link", func(t *testing.T) {
			s := newScripted(t, `echo "Error (secret)" >"$0.secret"; ln -s "$0.secret" "$work/`+c.log+`"; exit 1`)
			if e := failure(t, s.calls(t)[c.call]()); strings.Contains(e.Message, "secret") {
				t.Errorf("%q", e.Message)
			}
		})
	}
}

// CRIU's own files: in the folder that the client names, where they stay; else
// in the container's work folder, in none that outlives the call.
func TestWorkFolderOfCRIU(t *testing.T) {
	look := `echo "$work" >"$0.work"; stat -c '%a %u %g' "$work" >"$0.stat"; echo x >"$work/file"; [ -z "$pidfile" ] || echo 1 >"$pidfile"`
	used := func(t *testing.T, s *scripted) (dir, stat string) {
		t.Helper()
		for name, to := range map[string]*string{".work": &dir, ".stat": &stat} {
			b, err := os.ReadFile(s.path + name)
			if err != nil {
				t.Fatal(err)
			}
			*to = strings.TrimSpace(string(b))
		}
		return dir, stat
	}
	for _, operation := range []string{"checkpoint", "restore"} {
		t.Run(operation+" without a work folder", func(t *testing.T) {
			s := newScripted(t, look)
			if err := s.calls(t)[operation](); err != nil {
				t.Fatal(err)
			}
			dir, _ := used(t, s)
			if filepath.Dir(dir) != string(s.bundle) {
				t.Errorf("in %s", dir)
			}
			mustBeGone(t, dir)
			os.Remove(s.bundle.InitPidFile())
		})
		t.Run(operation+" with one", func(t *testing.T) {
			s := newScriptedWith(t, oci.Options{IOUID: 1234, IOGID: 2345}, look)
			work := t.TempDir()
			if err := os.Symlink(work, s.bundle.Work()); err != nil {
				t.Fatal(err)
			}
			if err := s.calls(t)[operation](); err != nil {
				t.Fatal(err)
			}
			dir, stat := used(t, s)
			if filepath.Dir(dir) != s.bundle.Work() || stat != "700 1234 2345" {
				t.Errorf("in %s (%s)", dir, stat)
			}
			mustBeGone(t, dir)
			if left, err := os.ReadDir(work); err != nil || len(left) != 0 {
				t.Errorf("left there: %v, %v", left, err)
			}
			os.Remove(s.bundle.InitPidFile())
			os.Remove(s.bundle.Work())
		})
	}
	t.Run("that of the client is kept", func(t *testing.T) {
		s := newScripted(t, look)
		work := t.TempDir()
		if err := s.Checkpoint(t.Context(), container, CheckpointOptions{WorkPath: work}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Restore(t.Context(), container, RestoreOptions{WorkPath: work}, null(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(work, "file")); err != nil {
			t.Error(err)
		}
		os.Remove(s.bundle.InitPidFile())
	})
	t.Run("that of the options is for a restore", func(t *testing.T) {
		work := t.TempDir()
		s := newScriptedWith(t, oci.Options{CriuWorkPath: work}, look)
		if _, err := s.Restore(t.Context(), container, RestoreOptions{}, null(t)); err != nil {
			t.Fatal(err)
		}
		if dir, _ := used(t, s); dir != work {
			t.Errorf("in %s", dir)
		}
		os.Remove(s.bundle.InitPidFile())
	})
	t.Run("that cannot be made", func(t *testing.T) {
		s := newScripted(t, look)
		if err := os.Symlink("/proc/nonexistent/folder", s.bundle.Work()); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(string(s.bundle), 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(s.bundle.Work())
		defer os.Chmod(string(s.bundle), 0o700)
		if err := s.Checkpoint(t.Context(), container, CheckpointOptions{}); err != nil && !errors.Is(err, syscall.EACCES) {
			t.Error(err) // root makes it in the bundle in spite of the mode
		}
	})
}

func mustBeGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", path, err)
	}
}

func TestLastErrorOfCRIU(t *testing.T) {
	for _, c := range []struct{ log, want string }{
		{"", ""},
		{"\n\n", ""},
		{dumped, "(00.041999) Error (criu/cr-dump.c:2053): Dumping FAILED."},
		{"Error (criu/crtools.c:1): no time", "Error (criu/crtools.c:1): no time"},
		{"(00.1) pie: 12: Error (criu/pie/restorer.c:9): x\n", "(00.1) pie: 12: Error (criu/pie/restorer.c:9): x"},
		{"(00.1) Warn (criu/x.c:1): the Error (y) is none\n", ""},
		{"(00.1)     42: Error (criu/files-reg.c:9): file\r\n(00.2) Warn (x): Error\n", "(00.1)     42: Error (criu/files-reg.c:9): file"},
	} {
		if got := lastCriuError([]byte(c.log)); got != c.want {
			t.Errorf("%q: %q, want %q", c.log, got, c.want)
		}
	}
}
