package oci

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerd's delete reads what the shim writes, at any time; and the exit and
// the delete of a container may be recorded at the same time. Who reads before
// there is a record finds none.
func TestReaderSeesTheOldOrTheNewContent(t *testing.T) {
	b := newBundle(t)
	read := func() error {
		e, err := b.ReadExit()
		if err == nil && e.Pid != e.Status {
			t.Errorf("%+v", e)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		return err
	}
	for range 50 {
		must(t, b.Remove(exitFile))
		must(t, b.ReserveExit())
		if _, err := b.ReadExit(); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("read before it was written: %v", err)
		}
		var all sync.WaitGroup
		for n := range 3 {
			all.Go(func() {
				for i := range 20 {
					e := exit
					e.Pid = 1 + n
					if i%2 == 0 { // of another length
						e.Pid = 1000000 + n
					}
					e.Status = e.Pid
					if err := b.WriteExit(e); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 40 {
			read()
		}
		all.Wait()
		must(t, read())
		b.mustHold(t, exitFile)
	}
}

// Records are what encoding/json would write, and are read by it.
func TestExitIsJSON(t *testing.T) {
	at := time.Date(2026, 2, 28, 23, 59, 59, 123456789, time.UTC)
	zone := time.FixedZone("", -(5*60+30)*60)
	for _, e := range []Exit{
		{},
		{Timestamp: at, Pid: 4194304, Status: 255},
		{Timestamp: at.Truncate(time.Second).In(zone), Pid: 1, Status: 137, Signal: 9, OOM: true, Deleted: true},
		{Timestamp: at.In(zone), Pid: -1, Status: -1, Signal: -1, Deleted: true},
		{Timestamp: at.Add(-789), OOM: true},
	} {
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.appendJSON(nil); string(got) != string(want) {
			t.Errorf("%+v is written as\n%s, want\n%s", e, got, want)
		}
	}
	if n := reflect.TypeFor[Exit]().NumField(); n != 6 {
		t.Errorf("an exit has %d fields; those above have all of 6", n)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// small makes a filesystem with little room.
func small(t *testing.T, kind string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir = t.TempDir()
	switch kind {
	case "tmpfs":
		must(t, unix.Mount("small", dir, kind, 0, "size=256k,nr_inodes=100"))
	default:
		image := filepath.Join(t.TempDir(), "image")
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 1<<20))
		if said, err := exec.Command("mkfs."+kind, "-q", "-m", "0", image).CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			t.Skip(err)
		} else if err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		if said, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
			t.Skipf("no loop device: %v: %s", err, said)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// fill leaves neither a byte nor, with files, a name.
func fill(t *testing.T, dir string, files bool) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(dir, "full"), 0o700))
	f, err := os.Create(filepath.Join(dir, "full", "data"))
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else {
			must(t, err)
		}
	}
	for i := 0; files; i++ {
		err := unix.Mknod(filepath.Join(dir, "full", strings.Repeat("x", i%200)+string(rune('0'+i/200))), unix.S_IFREG, 0)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		must(t, err)
	}
}

// Where nothing can be written the delete action said 137, whatever the
// container had ended with, if the shim was not there any more.
func TestExitIsRecordedWhereThereIsNoRoom(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		for _, files := range []bool{false, true} {
			t.Run(kind, func(t *testing.T) {
				dir := small(t, kind)
				b, late := Bundle(filepath.Join(dir, "b")), Bundle(filepath.Join(dir, "late"))
				must(t, os.Mkdir(string(b), 0o700))
				must(t, os.Mkdir(string(late), 0o700))
				must(t, b.ReserveExit())
				must(t, b.ReserveExit()) // by another program of the shim
				fill(t, dir, files)
				if err := late.ReserveExit(); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("reserved without room: %v", err)
				}
				late.mustHold(t)
				must(t, b.WriteExit(exit))
				if got, err := b.ReadExit(); err != nil || got != exit {
					t.Errorf("%+v, %v; want %+v", got, err, exit)
				}
				b.mustHold(t, exitFile)
				// Another needs room; without, the first one stays.
				if err := b.WriteExit(Exit{Pid: 1}); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("a second record: %v", err)
				}
				if got, err := b.ReadExit(); err != nil || got != exit {
					t.Errorf("%+v, %v; want %+v", got, err, exit)
				}
				b.mustHold(t, exitFile)
			})
		}
	}
}

// Of a Create that has failed nothing is left.
func TestReservedRoomIsGivenBack(t *testing.T) {
	b := newBundle(t)
	must(t, b.ReserveExit())
	must(t, b.ReleaseExit())
	b.mustHold(t)
	must(t, b.ReleaseExit())
}

// Whatever has taken the place of what was reserved: the record is written and
// nothing else is.
func TestReservedRoomThatIsNotWhatItShouldBe(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	put(t, other, "text")
	for kind, place := range map[string]func(path string) error{
		"link":   func(path string) error { return os.Symlink(other, path) },
		"FIFO":   func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket": func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
		"device": func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(kind, func(t *testing.T) {
			b := newBundle(t)
			if err := place(b.Path(exitRoom)); err != nil {
				t.Skip(err)
			}
			must(t, b.WriteExit(exit))
			if got, err := b.ReadExit(); err != nil || got != exit {
				t.Errorf("%+v, %v; want %+v", got, err, exit)
			}
			b.mustHold(t, exitFile)
			if text, err := os.ReadFile(other); err != nil || string(text) != "text" {
				t.Errorf("what a link points to was changed: %q, %v", text, err)
			}
		})
	}
}
