package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

func newBundle(t testing.TB) Bundle {
	t.Helper()
	return Bundle(t.TempDir())
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var exit = Exit{Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC), Pid: 4711, Status: 137, Signal: 9, OOM: true, Deleted: true}

var everyOption = Options{
	NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shim", IOUID: 1, IOGID: 4294967295,
	BinaryName: "crun", Root: "/run/x", SystemdCgroup: true, CriuImagePath: "/image", CriuWorkPath: "/work",
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	b := newBundle(t)
	for _, e := range []Exit{{}, exit, {Timestamp: exit.Timestamp, Pid: 1}} {
		if err := b.WriteExit(e); err != nil {
			t.Fatal(err)
		}
		if got, err := b.ReadExit(); err != nil || got != e {
			t.Errorf("%+v, %v; want %+v", got, err, e)
		}
	}
	for _, o := range []Options{{}, everyOption, {Args: []string{"--debug"}, Env: []string{"A=1"}, LogFormat: TextLog, Signals: RuntimeSignals, Processes: ElsewhereProcesses}} {
		if err := b.WriteOptions(o); err != nil {
			t.Fatal(err)
		}
		if got, err := b.ReadOptions(); err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("%+v, %v; want %+v", got, err, o)
		}
	}
	for _, address := range []string{"", "unix:///run/containerd/s/0123"} {
		if err := b.WriteAddress(address); err != nil {
			t.Fatal(err)
		}
		if got, err := b.ReadAddress(); err != nil || got != address {
			t.Errorf("%q, %v; want %q", got, err, address)
		}
	}
	b.mustHold(t, "exit.json", "options.json", "runtime", "address")
	for _, name := range []string{"exit.json", "options.json", "runtime", "address"} {
		if info, err := os.Stat(b.Path(name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func (b Bundle) mustHold(t testing.TB, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(string(b))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(names) {
		t.Errorf("the bundle holds %s; want %s", got, names)
	}
}

// A shim that died early has written nothing.
func TestWhatWasNeverWritten(t *testing.T) {
	b := newBundle(t)
	if o, err := b.ReadOptions(); err != nil || !reflect.DeepEqual(o, Options{}) {
		t.Errorf("options: %+v, %v", o, err)
	}
	if _, err := b.ReadExit(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exit: %v", err)
	}
	if _, err := b.ReadAddress(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("address: %v", err)
	}
	if _, err := b.ReadSpec(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("spec: %v", err)
	}
	gone := Bundle(filepath.Join(string(b), "gone"))
	if _, err := gone.ReadExit(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("exit in a bundle that is gone: %v", err)
	}
	if err := gone.WriteExit(exit); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write to a bundle that is gone: %v", err)
	}
}

// A container can outlive an upgrade or downgrade: delete of either make finds
// what the other has written.
func TestFilesAreThoseOfContainerdsOwnShim(t *testing.T) {
	b := newBundle(t)
	theirs := options.Options{
		NoPivotRoot: true, NoNewKeyring: true, ShimCgroup: "/shim", IoUid: 1, IoGid: 4294967295,
		BinaryName: "crun", Root: "/run/x", SystemdCgroup: true, CriuImagePath: "/image", CriuWorkPath: "/work",
	}
	text, err := json.Marshal(&theirs)
	if err != nil {
		t.Fatal(err)
	}
	// And two fields that it has, but that say nothing to a shim.
	put(t, b.Path("options.json"), strings.TrimSuffix(string(text), "}")+`,"task_api_address":"unix:///x","task_api_version":3}`)
	if got, err := b.ReadOptions(); err != nil || !reflect.DeepEqual(got, everyOption) {
		t.Errorf("of theirs: %+v, %v; want %+v", got, err, everyOption)
	}
	if err := b.WriteOptions(everyOption); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(b.Path("options.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got options.Options
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, &theirs) {
		t.Errorf("of ours: %+v, want %+v", &got, &theirs)
	}
	if name, err := os.ReadFile(b.Path("runtime")); err != nil || string(name) != "crun" {
		t.Errorf("runtime: %q, %v", name, err)
	}

	text, err = json.Marshal(runc.Exit{Timestamp: exit.Timestamp, Pid: exit.Pid, Status: exit.Status})
	if err != nil {
		t.Fatal(err)
	}
	put(t, b.Path("exit.json"), string(text))
	if got, err := b.ReadExit(); err != nil || got != (Exit{Timestamp: exit.Timestamp, Pid: exit.Pid, Status: exit.Status}) {
		t.Errorf("exit of theirs: %+v, %v", got, err)
	}
	if err := b.WriteExit(exit); err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(b.Path("exit.json")); err != nil {
		t.Fatal(err)
	}
	var e runc.Exit
	if err := json.Unmarshal(text, &e); err != nil || e.Pid != exit.Pid || e.Status != exit.Status || !e.Timestamp.Equal(exit.Timestamp) {
		t.Errorf("exit of ours: %+v, %v", e, err)
	}
}

// Whatever lies in a file's place: it is not followed, not waited for, not
// taken into memory.
func TestFilesThatAreNotWhatTheyShouldBe(t *testing.T) {
	b := newBundle(t)
	secret := filepath.Join(t.TempDir(), "secret")
	put(t, secret, `{"Pid":1}`)
	read := map[string]func() error{
		"options.json": func() error { _, err := b.ReadOptions(); return err },
		"exit.json":    func() error { _, err := b.ReadExit(); return err },
		"address":      func() error { _, err := b.ReadAddress(); return err },
		"config.json":  func() error { _, err := b.ReadSpec(); return err },
	}
	write := map[string]func() error{
		"options.json": func() error { return b.WriteOptions(everyOption) },
		"exit.json":    func() error { return b.WriteExit(exit) },
		"address":      func() error { return b.WriteAddress("x") },
	}
	for kind, place := range map[string]func(path string) error{
		"link":        func(path string) error { return os.Symlink(secret, path) },
		"broken link": func(path string) error { return os.Symlink("/nonexistent", path) },
		"FIFO":        func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket":      func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
		"device":      func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) }, // zeros
		"huge file":   func(path string) error { put(t, path, ""); return os.Truncate(path, 1<<40) },
		"rubbish":     func(path string) error { return os.WriteFile(path, []byte("\x00{"), 0o600) },
		"half a file": func(path string) error { return os.WriteFile(path, []byte(`{"Pid":1,"sta`), 0o600) },
		"folder":      func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		for name := range read {
			t.Run(kind+" for "+name, func(t *testing.T) {
				path := b.Path(name)
				if err := place(path); err != nil {
					t.Skip(err)
				}
				defer os.Remove(path)
				if err := read[name](); err == nil && !(name == "address" && (kind == "rubbish" || kind == "half a file")) {
					t.Error("it was read")
				} else if err != nil && !strings.Contains(err.Error(), path) {
					t.Errorf("the error does not name it: %v", err)
				}
				if write[name] == nil {
					return
				}
				if err := write[name](); (err != nil) != (kind == "folder") {
					t.Errorf("write: %v", err)
				}
				if info, err := os.Lstat(path); err != nil || info.Mode().IsRegular() != (kind != "folder") {
					t.Errorf("in its place is %v, %v", info.Mode(), err)
				}
				if text, err := os.ReadFile(secret); err != nil || string(text) != `{"Pid":1}` {
					t.Errorf("what a link points to was changed: %q, %v", text, err)
				}
				os.Remove(b.Path("runtime"))
			})
		}
	}
	b.mustHold(t)
}

func TestReadTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		text  string
		limit int64
		want  string
	}{
		{"", 4, ""},
		{"abc", 4, "abc"},
		{"abcd", 4, "abcd"},
		{"abcdef", 4, "cdef"},
		{"abc", 0, ""},
	} {
		put(t, path, c.text)
		if got, err := ReadTail(path, c.limit); err != nil || string(got) != c.want {
			t.Errorf("%d of %q: %q, %v", c.limit, c.text, got, err)
		}
	}
	if _, err := ReadTail(path+"-gone", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestReadRegularIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	put(t, path, "abcd")
	if got, err := ReadRegular(path, 4); err != nil || string(got) != "abcd" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ReadRegular(path, 3); err == nil {
		t.Errorf("more than the bound was read: %q", got)
	}
}

func TestPlaces(t *testing.T) {
	b := Bundle("/run/bundle")
	for got, want := range map[string]string{
		b.Rootfs(): "/run/bundle/rootfs", b.Work(): "/run/bundle/work", b.InitPidFile(): "/run/bundle/init.pid", b.Path("x"): "/run/bundle/x",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
