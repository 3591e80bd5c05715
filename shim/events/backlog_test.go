package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inMemory is how many bytes of events a queue holds, and in how many events.
func (q *Queue) inMemory() (size, events int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range [][][]byte{q.backlog.head, q.backlog.tail} {
		events += len(list)
		for _, e := range list {
			size += len(e)
		}
	}
	return size, events
}

// rests waits until nothing is being written to the file, or is still to be.
func (q *Queue) rests(t *testing.T) {
	t.Helper()
	eventually(t, "what is too much for memory is in the file", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return !q.backlog.writing && q.backlog.tailSize < q.backlog.enough
	})
}

// hasNoFile waits until a queue that is empty has none.
func (q *Queue) hasNoFile(t *testing.T) {
	t.Helper()
	eventually(t, "the file is closed", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.backlog.file == nil
	})
}

// However long containerd is away, what is kept for it takes no more memory than
// is said, is in order, and is all there.
func TestTensOfThousandsOfEventsAreKeptInOrderInBoundedMemory(t *testing.T) {
	const events = 30_000
	d := newDaemon(t)
	q, said := d.queue()
	limitsOfMemory[0].of(t, q)
	for i := range events {
		q.Publish(fmt.Sprint("/", i), oom())
		if i%1000 == 0 {
			q.rests(t)
		}
	}
	q.rests(t)
	if size, n := q.inMemory(); size > headLimit+batchSize+1000 || n > events/2 {
		t.Errorf("%d events with %d bytes are in memory", n, size)
	}
	if _, pending := q.Counters(); pending != events {
		t.Errorf("%d are pending", pending)
	}
	d.start()
	q.Kick()
	for {
		_, before := q.Counters()
		if before == 0 {
			break
		}
		eventually(t, "more are taken", func() bool { _, now := q.Counters(); return now < before })
	}
	d.hasTaken(numbered(events)...)
	q.hasNoFile(t)
	if said.count("") != 1 {
		t.Errorf("said %q", said.lines)
	}
}

// A disk without room costs memory, and neither events nor their order.
func TestFullDiskLosesNoEventAndNoOrder(t *testing.T) {
	for name, room := range map[string]string{"for nothing": "4k", "for some": "32k"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, "mount", unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+room))
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
			if room == "4k" {
				must(t, "fill", os.WriteFile(filepath.Join(dir, "x"), make([]byte, 4096), 0o600))
			}
			d := newDaemon(t)
			q, said := d.queue()
			limits{head: 5000, batch: 1000}.of(t, q)
			q.options.Spill = func() (*os.File, error) { return os.CreateTemp(dir, "") }
			const events = 3000
			publish(q, numbered(events)...)
			q.rests(t)
			if _, pending := q.Counters(); pending != events {
				t.Errorf("%d are pending", pending)
			}
			if n := said.count("kept in memory, which is not bounded: "); n != 1 || said.count("no space left on device") != 1 {
				t.Errorf("it says %d times that there is no room: %q", n, said.lines)
			}
			d.start()
			d.hasTaken(numbered(events)...)
			q.hasNoFile(t)
		})
	}
}

// When there is room again, it is used.
func TestDiskThatIsFullNoMore(t *testing.T) {
	d := newDaemon(t)
	q, said := d.queue()
	small := limits{head: 500, batch: 300}
	small.of(t, q)
	works := q.options.Spill
	var roomy atomic.Bool
	q.options.Spill = func() (*os.File, error) {
		if roomy.Load() {
			return works()
		}
		return os.OpenFile("/dev/full", os.O_RDWR, 0)
	}
	topics := numbered(300)
	publish(q, topics[:100]...)
	q.rests(t)
	if _, n := q.inMemory(); n != 100 {
		t.Errorf("%d of 100 events are in memory", n)
	}
	roomy.Store(true)
	publish(q, topics[100:]...)
	q.rests(t)
	if size, _ := q.inMemory(); size > 2000 {
		t.Errorf("%d bytes are in memory", size)
	}
	if said.count("no space left") != 1 {
		t.Errorf("said %q", said.lines)
	}
	d.start()
	d.hasTaken(topics...)
}

// Nobody waits for a disk that does not answer: neither what happens, nor what
// is sent. An upgrade does not come about.
func TestDiskThatHangsHoldsUpNothing(t *testing.T) {
	d := newDaemon(t)
	q, _ := d.queue()
	limits{head: 500, batch: 300}.of(t, q)
	works := q.options.Spill
	reached, release := make(chan struct{}, 1), make(chan struct{})
	q.options.Spill = func() (*os.File, error) {
		reached <- struct{}{}
		<-release
		return works()
	}
	topics := numbered(600)
	publish(q, topics[:100]...)
	<-reached
	publish(q, topics[100:200]...)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := q.Hold(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(err), "written to a file") {
		t.Errorf("held while it writes: %v", err)
	}
	q.GoOn()
	d.start()
	d.hasTaken(topics[:200]...)
	// What is written when it is sent already is not sent again.
	d.stop()
	publish(q, topics[200:400]...)
	close(release)
	publish(q, topics[400:]...)
	q.rests(t)
	d.start()
	q.Kick()
	d.hasTaken(topics...)
	must(t, "drain", q.Drain(bounded(t), patience))
	q.hasNoFile(t)
}

// A file that cannot be read is lost. What comes after it is not.
func TestUnreadableFileHoldsUpNothing(t *testing.T) {
	for name, damage := range map[string]func(*os.File) error{
		"it is gone":   func(f *os.File) error { return f.Truncate(0) },
		"it has zeros": func(f *os.File) error { _, err := f.WriteAt(make([]byte, 2000), 0); return err },
		"it is torn":   func(f *os.File) error { _, err := f.WriteAt([]byte{0, 0, 0, 1}, 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			q, said := d.queue()
			limits{head: 500, batch: 1000}.of(t, q)
			publish(q, numbered(200)...)
			q.rests(t)
			q.mu.Lock()
			err := damage(q.backlog.file)
			head, inFile := len(q.backlog.head), q.backlog.inFile
			q.mu.Unlock()
			must(t, "damage", err)
			d.start()
			must(t, "drain", q.Drain(bounded(t), patience))
			topics := d.topics()
			if len(topics) < 200-inFile || topics[head-1] != fmt.Sprint("/", head-1) || topics[len(topics)-1] != "/199" {
				t.Errorf("%d in memory, %d in the file, taken %q", head, inFile, topics)
			}
			if lost := 200 - len(topics); said.count("lost") == 0 {
				t.Errorf("%d are lost, said %q", lost, said.lines)
			}
			q.hasNoFile(t)
		})
	}
}

// Events of any size pass through the file.
func TestEventsThatAreLargerThanABatch(t *testing.T) {
	d := newDaemon(t)
	q, _ := d.queue()
	limits{head: 10, batch: 100}.of(t, q)
	var topics []string
	for i := range 50 {
		topics = append(topics, "/"+strings.Repeat("x", i*i*10)+fmt.Sprint(i))
	}
	publish(q, topics...)
	q.rests(t)
	d.start()
	d.hasTaken(topics...)
	q.hasNoFile(t)
}
