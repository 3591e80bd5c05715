package ready

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bell is a file that is ready when it was rung.
func bell(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "bell")
	t.Cleanup(func() { f.Close() })
	return f
}

func ring(t testing.TB, f *os.File) {
	t.Helper()
	if _, err := f.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

func on(t testing.TB, f *os.File, told func()) *Watch {
	t.Helper()
	w, err := On(f, unix.EPOLLIN, told)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func receive(t testing.TB, what string, from <-chan struct{}) {
	t.Helper()
	select {
	case <-from:
	case <-time.After(20 * time.Second):
		t.Fatalf("not in time: %s", what)
	}
}

func TestToldOfWhatIsThereAndOfEachThatComes(t *testing.T) {
	f := bell(t)
	ring(t, f)
	told := make(chan struct{}, 100)
	on(t, f, func() { told <- struct{}{} })
	receive(t, "what was there", told)
	for range 10 { // nobody reads the file: an edge each
		ring(t, f)
		receive(t, "what came", told)
	}
}

// behind returns when all that the goroutine was to be told of before is told.
func behind(t testing.TB) {
	t.Helper()
	f, told := bell(t), make(chan struct{}, 1)
	w := on(t, f, func() { told <- struct{}{} })
	ring(t, f)
	receive(t, "the last", told)
	w.Stop()
}

func TestNobodyIsToldAfterStop(t *testing.T) {
	f := bell(t)
	var told atomic.Int32
	w := on(t, f, func() { told.Add(1) })
	w.Stop()
	w.Stop()
	ring(t, f)
	behind(t)
	if n := told.Load(); n != 0 {
		t.Errorf("told %d times", n)
	}
}

// What was there before a watch was changed to it is told as well, and what is not
// waited for any more is not.
func TestChangedWatchIsToldOfOtherEvents(t *testing.T) {
	f := bell(t)
	told := make(chan struct{}, 100)
	w := on(t, f, func() { told <- struct{}{} })
	behind(t)
	if len(told) > 0 {
		t.Fatal("told, and nothing was there")
	}
	if err := w.Change(unix.EPOLLOUT); err != nil {
		t.Fatal(err)
	}
	receive(t, "that there is room", told)
	if err := w.Change(unix.EPOLLPRI); err != nil {
		t.Fatal(err)
	}
	ring(t, f)
	behind(t)
	if len(told) > 0 {
		t.Error("told of what is not waited for any more")
	}
	w.Stop()
	if err := w.Change(unix.EPOLLIN); !errors.Is(err, os.ErrClosed) {
		t.Errorf("change of a watch that is stopped: %v", err)
	}
}

// A descriptor that is closed while a duplicate is open stays in the epoll's list
// unless it was taken out. Its number is another file's by then.
func TestStoppedFileDoesNotTellForItsDuplicate(t *testing.T) {
	f := bell(t)
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	duplicate := os.NewFile(uintptr(fd), "duplicate")
	defer duplicate.Close()
	var told atomic.Int32
	w := on(t, f, func() { told.Add(1) })
	w.Stop()
	f.Close()
	ring(t, duplicate)
	behind(t)
	if n := told.Load(); n != 0 {
		t.Errorf("told %d times", n)
	}
}

func TestStopWithinATellingIsTheLast(t *testing.T) {
	f := bell(t)
	told := make(chan struct{}, 10)
	made := make(chan struct{})
	var w *Watch
	w = on(t, f, func() {
		<-made
		w.Stop()
		told <- struct{}{}
	})
	close(made)
	ring(t, f)
	receive(t, "the first", told)
	ring(t, f)
	behind(t)
	if len(told) != 0 {
		t.Error("told after Stop")
	}
}

func TestWhatCannotBeWaitedForIsRefused(t *testing.T) {
	f, err := os.Open("/proc/self/exe") // a regular file: EPERM of epoll_ctl(2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if w, err := On(f, unix.EPOLLIN, func() {}); err == nil {
		t.Errorf("%v", w)
	}
	closed := bell(t)
	closed.Close()
	if w, err := On(closed, unix.EPOLLIN, func() {}); err == nil {
		t.Errorf("%v", w)
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if len(all.keys) != 0 {
		t.Errorf("%d watches are left", len(all.keys))
	}
}

// The point of it all: a thousand files are waited for by one goroutine.
func TestManyFilesAreOneGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	told := make(chan struct{}, 1000)
	var files []*os.File
	for range 1000 {
		f := bell(t)
		on(t, f, func() { told <- struct{}{} })
		files = append(files, f)
	}
	if more := runtime.NumGoroutine() - before; more > 1 {
		t.Errorf("%d goroutines more", more)
	}
	for _, f := range files {
		ring(t, f)
	}
	for range files {
		receive(t, "one of a thousand", told)
	}
}
